"""When a scan is due, how fast it goes, what is kept of it: restarts included, against doing it in one go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.events.position import Position
from backend_watcher.reconcile.compare import Difference, Kind
from backend_watcher.reconcile.report import Answer, TableResult
from backend_watcher.reconcile.rounds import (
    CHUNK_ROWS_MAX,
    CHUNK_ROWS_MIN,
    NOTES_MAX,
    ROWS_PER_SECOND_MAX,
    ROWS_PER_SECOND_MIN,
    Outcome,
    Round,
    Scans,
    chunk_rows,
    dump,
    load,
    outcome_of,
    pace,
)

NAMES = ["public.a", "public.b", "public.c"]


@given(st.lists(st.sampled_from(["done", "restart", "wait"]), max_size=40), st.lists(st.booleans(), max_size=40))
def test_each_table_is_scanned_once_a_round_whatever_happens_in_between(steps: list[str], gone: list[bool]) -> None:
    scans, now, scanned, period = Scans(), 1000.0, [], 500.0
    for step in steps:
        now += 10.0
        if step == "restart":
            scans = load(dump(scans))
        elif step == "wait":
            now += 100.0
        elif now >= scans.due_at(period):
            table = scans.next_table(NAMES, now)
            if table is not None:
                assert scans.now is not None
                scans.now.tables[table] = Outcome("equal", now)
                scanned.append(table)
    assert scanned == [NAMES[number % 3] for number in range(len(scanned))]
    if scans.last is not None:
        assert (list(scans.last.tables), scans.last.verdict) == (NAMES, "equal")
        assert scans.now is None or scans.now.begun_at >= scans.last.begun_at + period


def test_a_scan_that_takes_longer_than_its_period_is_followed_at_once() -> None:
    scans = Scans(last=Round(1000.0, 9000.0))
    assert scans.due_at(500.0) == 1500.0
    assert Scans(now=Round(1000.0)).due_at(1e9) == 0.0


def test_a_table_that_is_no_longer_listened_to_is_forgotten() -> None:
    scans = Scans(now=Round(1.0, tables={"public.gone": Outcome("different", 2.0)}))
    assert scans.next_table(["public.a"], 3.0) == "public.a"
    assert scans.now is not None
    assert scans.now.tables == {}


@pytest.mark.parametrize(
    ("verdicts", "ended", "verdict"),
    [
        (["equal", "equal"], True, "equal"),
        (["equal", "equal"], False, "partial"),
        (["equal", "unsettled"], True, "unsettled"),
        (["unsettled", "partial"], True, "partial"),
        (["partial", "different"], True, "different"),
        (["different"], False, "different"),
        ([], True, "partial"),
    ],
)
def test_the_gravest_is_told(verdicts: list[str], ended: bool, verdict: str) -> None:
    tables = {str(number): Outcome(one, 1.0) for number, one in enumerate(verdicts)}
    assert Round(0.0, 5.0 if ended else None, tables).verdict == verdict


@given(st.integers(0, 10**10), st.floats(60, 1e8))
def test_it_is_done_in_time_within_what_it_may_read(rows: int, seconds: float) -> None:
    rate = pace(rows, seconds)
    assert ROWS_PER_SECOND_MIN <= rate <= ROWS_PER_SECOND_MAX
    assert CHUNK_ROWS_MIN <= chunk_rows(rate) <= CHUNK_ROWS_MAX
    if rate < ROWS_PER_SECOND_MAX:
        # The number of rows may be twice as large as was thought.
        assert 2 * rows / rate <= seconds * (1 + 1e-9)


def test_no_entry_and_no_value_is_kept() -> None:
    result = TableResult("cache", "public.a", rows=7, complete=True, position=Position(0x100, 2))
    result.differences = [Difference(b"a:1", Kind.MISSING, b"secret", None), Difference(b"a:2", Kind.EXTRA, None, b"s")]
    result.unsettled["moving"] = 3
    result.notes = ["note"] * 100
    kept = outcome_of(result, 5.0)
    assert (kept.verdict, kept.missing, kept.extra, kept.different, kept.unsettled) == ("different", 1, 1, 0, 3)
    assert (kept.position, len(kept.notes), kept.ended_at) == ("0/100:2", NOTES_MAX, 5.0)
    one = Scans(now=Round(1.0, tables={"public.a": kept}))
    assert "secret" not in dump(one)
    assert load(dump(one)) == one
    assert one.now is not None
    assert one.now.words == "7 rows of 1 tables: 1 missing, 1 extra, 3 unsettled"
    plain = one.as_plain()
    assert (plain["last"], plain["now"]["verdict"]) == (None, Answer.DIFFERENT)
    assert load("nonsense") == load(None) == Scans()
