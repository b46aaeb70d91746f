"""Sequences of both sides, against numbers that are given one by one."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.reconcile.cutover import State, compare_sequences


@dataclass(frozen=True)
class One:
    place: int
    column: str
    increment: int = 1
    readable: bool = True
    last_value: int | None = None


def given_after(start: int, increment: int, times: int) -> set[int]:
    return {start + increment * number for number in range(1, times + 1)}


@given(st.sampled_from([-7, -1, 1, 3]), st.integers(0, 9), st.integers(0, 9))
def test_one_that_is_ready_gives_no_number_that_was_given(increment: int, here: int, there: int) -> None:
    """Both began at the same number; each has given so many."""
    taken = given_after(100 - increment, increment, here)
    last = [100 + increment * (count - 1) if count else None for count in (here, there)]
    source, replica = (One(0, "id", increment, last_value=value) for value in last)
    (one,) = compare_sequences([source], [replica])
    next_ones = given_after(100 + increment * (there - 1), increment, 20)
    assert (one.state is State.READY) == (not taken & next_ones)


def test_what_one_side_does_not_have_or_may_not_be_seen() -> None:
    source = [One(0, "id", last_value=5), One(0, "n"), One(1, "id", readable=False), One(2, "id")]
    replica = [One(0, "n", readable=False), One(1, "id", last_value=5), One(2, "id"), One(2, "more")]
    states = [(one.source.place, one.source.column, one.state) for one in compare_sequences(source, replica)]
    assert states == [
        (0, "id", State.MISSING),
        (0, "n", State.UNREADABLE),
        (1, "id", State.UNREADABLE),
        (2, "id", State.READY),
    ]
