"""Against a model that knows all rows: what is read has every difference in it, and little else."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.reconcile.bisect import (
    PART_ROWS,
    QUERY_SECONDS,
    RANGE_ROWS_FIRST,
    RANGE_ROWS_MAX,
    Pace,
    Part,
    Span,
    bounds_of,
    differing,
    ended,
    equal,
    parts_of,
)
from backend_watcher.reconcile.digest import hash_of
from backend_watcher.verifiable import Bound

Rows = dict[int, int]
ROWS = st.dictionaries(st.integers(-30, 30), st.integers(0, 2), max_size=40)


def within(key: int, low: Bound, high: Bound) -> bool:
    return (not low or key > int(low[0])) and (not high or key <= int(high[0]))


def digest(rows: Rows, low: Bound, high: Bound) -> tuple[int, int]:
    chosen = [hash_of(b"%d" % key, b"%d" % value) for key, value in rows.items() if within(key, low, high)]
    return len(chosen), sum(chosen)


def source_parts(rows: Rows, low: Bound, asked: int, part_rows: int) -> list[tuple[int, int, Bound]]:
    """Say what a source says."""
    keys = sorted(key for key in rows if within(key, low, ()))[:asked]
    parts = [keys[at : at + part_rows] for at in range(0, len(keys), part_rows)]
    return [
        (len(part), sum(hash_of(b"%d" % k, b"%d" % rows[k]) for k in part), (str(part[-1]),) * (len(part) == part_rows))
        for part in parts
    ]


@given(ROWS, ROWS, st.integers(1, 5), st.integers(1, 6), st.integers(1, 20))
def test_every_difference_is_read_and_nothing_without_one(
    source: Rows, by_hand: Rows, part_rows: int, parts_in_range: int, rows_max: int
) -> None:
    sink = {key: value for key, value in source.items() if by_hand.get(key) != 0} | {
        key: value for key, value in by_hand.items() if value > 0
    }
    wrong = {key for key in source.keys() | sink.keys() if source.get(key) != sink.get(key)}
    asked = part_rows * parts_in_range
    low: Bound = ()
    every: list[Part] = []
    spans: list[Span] = []
    same = 0
    while True:
        parts = parts_of(low, source_parts(source, low, asked, part_rows), asked)
        there = [digest(sink, one, other) for one, other in pairwise(bounds_of(parts))]
        every += parts
        spans += differing(parts, there, rows_max)
        rows, total = equal(parts, there)
        same += rows
        inside = [span for span in spans if any(span.low == part.low for part in parts)]
        assert total + sum(digest(source, span.low, span.high)[1] for span in inside) == sum(p.total for p in parts)
        if ended(parts):
            break
        low = parts[-1].high
    # The parts leave no place between them, nor before and behind.
    assert (every[0].low, every[-1].high) == ((), ())
    assert all(one.high == other.low for one, other in pairwise(every))
    assert all(one.rows <= part_rows for one in every)
    # What is to be read has all that is wrong, each part of it something, and the rest is equal.
    read = [key for span in spans for key in source.keys() | sink.keys() if within(key, span.low, span.high)]
    assert wrong <= set(read)
    assert len(read) == len(set(read))
    assert same + sum(span.rows for span in spans) == len(source)
    assert sum(span.rows for span in spans) <= part_rows * len(wrong)
    assert all(span.rows <= max(rows_max, part_rows) for span in spans)


def test_a_table_without_rows_is_one_part() -> None:
    (part,) = parts_of((), [], 100)
    assert (part, ended([part])) == (Part((), (), 0, 0), True)
    assert differing([part], [(0, 0)], 10) == []
    assert differing([part], [(2, 7)], 10) == [Span((), (), 0)]


def test_neighbours_are_read_together() -> None:
    parts = parts_of((), [(2, 1, ("2",)), (2, 1, ("4",)), (2, 1, ("6",)), (1, 1, ())], 8)
    assert differing(parts, [(2, 0)] * 4, 4) == [Span((), ("4",), 4), Span(("4",), (), 3)]
    assert differing(parts, [(2, 0), (2, 1), (2, 0), (1, 1)], 4) == [Span((), ("2",), 2), Span(("4",), ("6",), 2)]


@given(st.lists(st.one_of(st.floats(0.0001, 30), st.none()), max_size=30), st.integers(1, 1 << 20))
def test_the_pace_keeps_its_bounds(queries: list[float | None], rows_max: int) -> None:
    pace = Pace(rows_max)
    for seconds in queries:
        before = pace.rows
        if seconds is None:
            assert pace.was_too_long() == (before > PART_ROWS)
            assert pace.rows < before or before == PART_ROWS
        else:
            pace.took(before, seconds)
            assert pace.rows <= 2 * before
        assert pace.rows % PART_ROWS == 0
        assert PART_ROWS <= pace.rows <= max(rows_max, PART_ROWS)


def test_the_pace_learns_from_how_long_it_takes() -> None:
    pace = Pace()
    assert pace.rows == RANGE_ROWS_FIRST
    for _ in range(10):
        pace.took(pace.rows, pace.rows / 1_000_000)
    assert pace.rows == RANGE_ROWS_MAX
    for _ in range(10):
        pace.took(pace.rows, pace.rows / 10_000)
    assert abs(pace.rows - QUERY_SECONDS * 10_000) <= PART_ROWS
    # The last rows of a table say only that so many are not too many.
    pace.took(10, 0.001)
    assert abs(pace.rows - QUERY_SECONDS * 10_000) <= PART_ROWS
