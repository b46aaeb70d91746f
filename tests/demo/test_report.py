"""The verdict: ok only if nothing is lost, nothing is wrong, and both phases did the same."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from backend_watcher.demo.measure import Delays
from backend_watcher.demo.proof import Proof
from backend_watcher.demo.report import PhaseReport, Report


def phase(**proof: object) -> PhaseReport:
    fields = {"changes": 1600, "crossings": 9, "notified": 9, "revenue_rupiah": 1_000_000} | proof
    return PhaseReport(100, 0, None, [10.0, 20.0, 70.0], Proof(**fields))  # type: ignore[arg-type]


GOOD = Report(
    60, 10, "80-160", phase(), phase(), Delays([1.0, 2.0], 900.0), Delays([1.5], 910.0), Delays([6.0], 950.0), 1
)


def test_all_well_ends_in_ok() -> None:
    assert GOOD.ok
    assert GOOD.verdict.startswith("1,600 changes delivered")
    assert GOOD.verdict.endswith(": ok")


@pytest.mark.parametrize(
    ("report", "says"),
    [
        (replace(GOOD, watched=phase(lost=["wallet:7 is not in the cache"])), "lost: wallet:7"),
        (replace(GOOD, watched=phase(wrong=["seller 2: too much"])), "wrong: seller 2"),
        (replace(GOOD, watched=replace(phase(), failed=2, failure="/orders: status 500")), "2 requests failed"),
        (replace(GOOD, watched=replace(phase(), orders=99)), "took 100 and 99 orders"),
        (replace(GOOD, inline=phase(revenue_rupiah=1)), "different amounts"),
        (replace(GOOD, inline=phase(crossings=0)), "inline: there was nothing"),
        (replace(GOOD, kills=0), "killed 0 times"),
    ],
)
def test_says_what_is_wrong(report: Report, says: str) -> None:
    assert not report.ok
    assert report.verdict.startswith("not ok: ")
    assert says in report.verdict


def test_what_inline_got_wrong_is_a_figure_not_a_fault() -> None:
    report = replace(GOOD, inline=phase(wrong=["product:1 differs in the cache: stock"]))
    assert report.ok
    assert report.to_json()["inline"]["wrong"] == 1


def test_json_has_the_figures() -> None:
    found = json.loads(json.dumps(GOOD.to_json()))
    assert found["inline"]["p99_ms"] == 70.0
    assert found["watched"]["p50_ms"] == 20.0
    assert found["commit_to_cache_ms"] == {"p50": 1.0, "p99": 2.0, "samples": 2}
    assert found["commit_to_handler_ms"]["p99"] == 1.5
    wanted = {"changes": 1600, "lost": 0, "wrong": 0, "kills": 1, "outage_ms": 900.0, "ok": True}
    assert wanted.items() <= found.items()
