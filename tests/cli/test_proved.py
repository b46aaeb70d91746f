"""How it is shown what was visible, what differs, and when all was compared."""

from __future__ import annotations

import time
from typing import Any

import pytest

from backend_watcher.cli.proved import DRIFT_SHOWN, show
from backend_watcher.service.control import SubscriptionStatus


def one(name: str = "cache", **proved: Any) -> SubscriptionStatus:
    return SubscriptionStatus(name, "running", None, None, None, None, None, 0, None, **proved)


def within(seconds: float, visible: int, missed: int) -> dict[str, Any]:
    known = visible + missed
    share = visible / known if known else None
    return {"seconds": seconds, "visible": visible, "missed": missed, "unknown": 0, "share": share}


def table(**found: int) -> dict[str, Any]:
    return {"verdict": "equal", "missing": 0, "extra": 0, "different": 0} | found


def shown(capsys: pytest.CaptureFixture[str], *subscriptions: SubscriptionStatus) -> list[str]:
    show(subscriptions)
    return capsys.readouterr().out.splitlines()


def test_nothing_is_said_of_those_that_are_not_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    nothing_yet = {"window_seconds": 600.0, "within": [within(1.0, 0, 0)]}
    assert shown(capsys, one(), one("other", read_back=nothing_yet)) == []


def test_shares_and_scans(capsys: pytest.CaptureFixture[str]) -> None:
    read_back = {"window_seconds": 600.0, "within": [within(1.0, 99_999, 1), within(5.0, 7, 0), within(60.0, 0, 0)]}
    now = time.time()
    done = {
        "verdict": "different",
        "begun_at": now - 7300,
        "ended_at": now - 7200,
        "error": "",
        "tables": {"a": table(missing=2)},
    }
    goes_on = {
        "verdict": "partial",
        "begun_at": now - 300,
        "ended_at": None,
        "error": "x: gone",
        "tables": {"a": table()},
    }
    lines = shown(capsys, one(read_back=read_back, scans={"last": done, "now": goes_on}), one("other"))
    head, row = [line.split("  ") for line in lines]
    assert [cell.strip() for cell in head if cell] == ["subscription", "visible in the sink", "all rows compared"]
    assert [cell.strip() for cell in row if cell] == [
        "cache",
        "99.99 % within 1 s, 100 % within 5 s (of 100000 in 10 min)",
        "different, 2 h ago (2 missing); under way for 5 min, 1 tables done, waiting: x: gone",
    ]


def test_what_differs_is_shown_and_not_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"table": "public.products", "entry": "p:7", "kind": "different", "since": time.time() - 60}
    lines = shown(capsys, one(drift=(entry,)))
    assert lines == [
        "DRIFT in  table            entry  how        for   what to do",
        "cache     public.products  p:7    different  60 s  `watcher verify cache public.products` shows both versions",
    ]
    assert shown(capsys, one(drift=(entry,) * (DRIFT_SHOWN + 3)))[-1].startswith("and 3 more")
