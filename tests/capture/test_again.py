"""When the source is tried again, and when it is not."""

from __future__ import annotations

import pytest

from backend_watcher.capture.again import RETRY_SECONDS_MAX, RETRY_SECONDS_MIN, SLOT_TRIES_MAX, Again
from backend_watcher.errors import (
    JournalFull,
    OutOfOrder,
    ProtocolError,
    SlotLost,
    SlotMoved,
    SourceRefused,
    SourceUnavailable,
    WatcherError,
)


def test_what_time_mends_is_tried_again_and_again_but_not_often() -> None:
    again = Again()
    delays = [again.after(SourceUnavailable("away"), 0.0, 1) for _ in range(50)]
    assert all(RETRY_SECONDS_MIN <= delay <= RETRY_SECONDS_MAX for delay in delays)
    assert len(set(delays)) > 10
    # After a session that lived, it begins anew.
    assert again.after(SourceUnavailable("away"), RETRY_SECONDS_MAX + 1, 1) == RETRY_SECONDS_MIN


def test_a_server_that_shuts_down_says_how_long_it_wants_to_be_left_alone() -> None:
    error = SourceUnavailable("shuts down")
    error.after_seconds = 10.0
    assert [Again().after(error, 0.0, 1) for _ in range(3)] == [10.0, 10.0, 10.0]


@pytest.mark.parametrize("error", [SlotMoved("x"), SourceRefused("x"), JournalFull("x")])
def test_what_needs_a_person_ends_it(error: WatcherError) -> None:
    with pytest.raises(type(error)) as caught:
        Again().after(error, 0.0, 1)
    assert caught.value is error


@pytest.mark.parametrize("error", [ProtocolError("what is this"), OutOfOrder("back")])
def test_bytes_that_make_no_sense_are_read_once_more(error: WatcherError) -> None:
    again = Again()
    assert again.after(error, 0.0, 1) > 0
    assert again.after(error, 0.0, 2) > 0, "at another place it is another fault"
    with pytest.raises(type(error)):
        again.after(error, 0.0, 2)


@pytest.mark.parametrize("kind", [SourceRefused, SourceUnavailable])
@pytest.mark.parametrize("state", ["55000", "58P01"])
def test_a_slot_that_cannot_be_read_is_tried_three_times(kind: type[WatcherError], state: str) -> None:
    again = Again()
    error = kind(f"PostgreSQL says: no (SQLSTATE {state})")
    for _ in range(SLOT_TRIES_MAX - 1):
        assert again.after(error, 0.0, 1) > 0
    with pytest.raises(SlotLost, match="tried 3 times"):
        again.after(error, 0.0, 1)
