"""What the journal may forget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.events.position import Position
from backend_watcher.journal.retention import Pressure, Retention, doomed

# Five blocks of 10 bytes that end at LSN 10, 20, ... and were captured at 10, 20, ...
BLOCKS = [(Position(lsn, 9), 10, float(lsn)) for lsn in range(10, 60, 10)]
NO_LIMIT = Retention()


@pytest.mark.parametrize(
    ("rule", "oldest_cursor", "shed_bytes", "count"),
    [
        (NO_LIMIT, None, 0, 0),
        (NO_LIMIT, Position(99, 0), 0, 0),
        (Retention(retain_seconds=75), None, 0, 2),
        (Retention(retain_seconds=75), Position(99, 0), 0, 2),
        (Retention(retain_seconds=75), Position(10, 9), 0, 1),
        (Retention(retain_seconds=75), Position(10, 8), 0, 0),
        (Retention(retain_bytes=25), None, 0, 3),
        (Retention(retain_bytes=20), None, 0, 3),
        (Retention(retain_bytes=0), None, 0, 5),
        (Retention(retain_bytes=25), Position(25, 0), 0, 2),
        (Retention(retain_bytes=25, retain_seconds=65), None, 0, 3),
        (NO_LIMIT, Position(99, 0), 1, 1),
        (NO_LIMIT, Position(99, 0), 11, 2),
        (NO_LIMIT, Position(99, 0), 1000, 5),
        (NO_LIMIT, Position(20, 9), 1000, 2),
        (NO_LIMIT, None, 1000, 0),
    ],
)
def test_the_rule(rule, oldest_cursor, shed_bytes, count):
    now = 100.0
    assert doomed(BLOCKS, 50, rule, Pressure(oldest_cursor, shed_bytes), now) == (count, count * 10)


@given(
    st.builds(
        Retention,
        retain_seconds=st.none() | st.floats(0, 100),
        retain_bytes=st.none() | st.integers(0, 60),
    ),
    st.builds(Position, st.integers(0, 60), st.integers(0, 12)),
    st.integers(0, 100),
)
def test_no_block_that_a_cursor_needs_is_ever_forgotten(rule, cursor, shed_bytes):
    count, _ = doomed(BLOCKS, 50, rule, Pressure(cursor, shed_bytes), 1000.0)
    assert all(last <= cursor for last, _, _ in BLOCKS[:count])
