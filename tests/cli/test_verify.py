"""`watcher verify`: what it prints, what it writes, and what the shell is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from backend_watcher.errors import CannotVerify
from backend_watcher.reconcile.compare import Difference, Kind
from backend_watcher.reconcile.report import TableResult
from backend_watcher.service.verifying import Asked, Proof
from cli.commands import CACHED_ORDERS, Done

Run = Callable[..., Done]


@pytest.fixture
def found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Proof:
    """What the verification has found, instead of a verification."""
    (folder / "watcher.toml").write_text(CACHED_ORDERS)
    one = TableResult("cache", "public.orders", rows=12_345, complete=True)
    proof = Proof("shop", 0.0, 1.0, [one], {"lines": "cannot be read back"})

    async def verify(_: object, __: object, asked: Asked) -> Proof:
        one.where = asked.where
        return proof

    monkeypatch.setattr("backend_watcher.service.verifying.verify", verify)
    return proof


def test_equal(run: Run, found: Proof) -> None:
    done = run("verify")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[1].split()[:4] == ["cache", "public.orders", "equal", "12,345"]
    assert "lines: not verified: cannot be read back" in done.out
    assert "digests" not in done.out.partition("\n")[2]
    found.results[0].by_digests, found.results[0].ranges, found.results[0].read_again = True, 7, 1_250
    done = run("verify")
    assert "cache public.orders: compared by digests of 7 ranges; 1,250 rows read again" in done.out


def test_drift(run: Run, found: Proof, folder: Path) -> None:
    (one,) = found.results
    one.differences = [Difference(b"order:%d" % n, Kind.DIFFERENT, b'{"n": 1}', b'{"n": 2}') for n in range(25)]
    one.unsettled = Counter({"changed all the time": 3})
    one.expired, one.refused, one.extras_unknown = 4, 5, "so it is"
    done = run("verify", "cache", "orders", "--where", "id > 3", "--html", "report.html")
    assert done.code == 5
    assert "cache public.orders: different 'order:0': source {'n': 1}, sink {'n': 2}" in done.out
    for words in (
        "and 5 more",
        "3 unsettled: changed all the time",
        "4 entries have expired",
        "5 rows cannot be",
        "so it is",
    ):
        assert words in done.out
    assert "order:24" in (folder / "report.html").read_text()
    plain = run("verify", "--json").json
    assert (plain["exit_code"], plain["verdict"], len(plain["tables"][0]["differences"])) == (5, "different", 25)


def test_a_report_that_cannot_be_written_is_refused_at_once(run: Run, found: Proof) -> None:
    for place in ("nowhere/report.html", "."):
        done = run("verify", "--html", place)
        assert (done.code, "cannot be written" in done.err, done.out) == (2, True, "")


def test_what_could_not_be_done(run: Run, found: Proof) -> None:
    found.interrupted = True
    found.error = CannotVerify("nothing moves")
    done = run("verify")
    assert (done.code, "interrupted" in done.out, "nothing moves" in done.err) == (75, True, True)


def test_without_a_watcher_that_ran(run: Run, folder: Path) -> None:
    (folder / "watcher.toml").write_text(CACHED_ORDERS)
    done = run("verify", "cache")
    assert "there is no journal" in done.err
