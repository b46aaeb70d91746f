"""How much is read at a time, and when reading waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.capture import pace
from backend_watcher.capture.pace import Backlog, Size, pages_size, pause_after, rows_size
from backend_watcher.events.position import Position

times = st.floats(0, 100)
sizes = st.integers(0, 1 << 40)


@given(st.lists(st.tuples(times, sizes, st.booleans())))
def test_a_chunk_stays_within_its_bounds(chunks: list[tuple[float, int, bool]]) -> None:
    size = rows_size()
    for seconds, size_bytes, full in chunks:
        size.took(seconds, size_bytes, full=full)
        assert pace.ROWS_MIN <= size.value <= pace.ROWS_MAX


def test_quick_chunks_grow_and_slow_ones_shrink() -> None:
    size = Size(1000, 1, 1_000_000)
    size.took(0.01, 1000)
    assert size.value == 2000
    size.took(pace.CHUNK_SECONDS * 4, 1000)
    assert size.value == 500
    size.took(0.01, pace.CHUNK_BYTES * 5)
    assert size.value == 100
    # The last rows of a table come quickly, and say nothing of a whole chunk.
    size.took(0.001, 10, full=False)
    assert size.value == 100


def test_a_chunk_that_was_not_read_in_time_is_halved() -> None:
    size = pages_size()
    for _ in range(20):
        size.failed()
    assert size.value == pace.PAGES_MIN


def test_a_limit_of_rows_makes_it_wait() -> None:
    assert pause_after(1000, 0.5, None) == 0.0
    assert pause_after(1000, 0.5, 1000) == 0.5
    assert pause_after(1000, 5, 1000) == 0.0


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 1 << 26)), max_size=40), st.integers(0, 31))
def test_the_backlog_is_what_no_cursor_has_passed(chunks: list[tuple[int, int]], cursor: int) -> None:
    backlog = Backlog()
    placed = sorted(chunks)
    for lsn, size_bytes in placed:
        backlog.placed(Position(lsn, 9), size_bytes)
    backlog.passed(Position(cursor, 5))
    assert backlog.size_bytes == sum(size_bytes for lsn, size_bytes in placed if (lsn, 9) > (cursor, 5))
    assert backlog.has_room == (backlog.size_bytes < pace.BACKLOG_BYTES_MAX)
