"""A change that PostgreSQL cannot send: how it is kept, and in which words it is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.capture.again import Again
from backend_watcher.capture.undecodable import TRIES_SECONDS, Undecodable
from backend_watcher.errors import SourceUnavailable, UndecodableChange

ERROR = UndecodableChange("invalid memory alloc request size", change_lsn=0x1_0000_0010, commit_lsn=0x1_0000_0400)


@given(st.builds(Undecodable, st.integers(0, 2**63), st.none() | st.integers(0, 2**63), st.text()))
def test_it_is_read_back_as_it_was_noted(stuck: Undecodable) -> None:
    assert Undecodable.from_note(stuck.to_note()) == stuck
    assert Undecodable.from_note(None) is None


def test_it_is_told_with_where_it_is_and_how_it_is_given_up() -> None:
    words = Undecodable.of(ERROR).words(900.0)
    assert "the change at 1/10" in words
    assert "commits at 1/400" in words
    assert "watcher skip 1/400 --reason" in words
    unknown = Undecodable.of(UndecodableChange("no", change_lsn=16)).words(5.0)
    assert "skip" not in unknown
    assert "0/10" in unknown


def test_it_is_tried_at_most_six_times_in_any_hour() -> None:
    again = Again()
    tries, now = [0.0], 0.0
    while now < 4 * 3600:
        # A network that fails in between does not make it more often.
        now += again.after(ERROR, 1.0, 5) if len(tries) % 3 else again.after(ERROR, 1.0, 5) + 1.0
        tries.append(now)
    assert tries[1] == TRIES_SECONDS[0]
    assert max(sum(begin <= one < begin + 3600 for one in tries) for begin in tries) <= 6
    again.after(SourceUnavailable("away"), 1.0, 5)
    assert again.after(ERROR, 1.0, 5) == TRIES_SECONDS[1]
    other = UndecodableChange("no", change_lsn=99)
    assert again.after(other, 1.0, 5) == TRIES_SECONDS[0], "another change is another matter"
