"""Which sequences of a replica would give a number twice if it took over. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar


class Numbered(Protocol):
    """A sequence on one side, as far as it is compared."""

    @property
    def place(self) -> int:
        """Which table it belongs to."""
        ...

    @property
    def column(self) -> str:
        """Which column."""
        ...

    @property
    def increment(self) -> int:
        """By how much it counts, downwards if below 0."""
        ...

    @property
    def readable(self) -> bool:
        """Whether we may see its last value."""
        ...

    @property
    def last_value(self) -> int | None:
        """The last number given, None for none yet."""
        ...


S = TypeVar("S", bound=Numbered)


class State(StrEnum):
    """How the sequence of a column stands at the replica."""

    READY = "ready"
    BEHIND = "behind"
    MISSING = "missing"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Compared(Generic[S]):
    """The sequence of a column on both sides."""

    source: S
    replica: S | None
    state: State


def compare_sequences(source: Sequence[S], replica: Sequence[S]) -> list[Compared[S]]:
    """Compare the sequences of the same tables, column by column; what only the replica has does no harm."""
    there = {(one.place, one.column): one for one in replica}
    found = []
    for one in source:
        other = there.get((one.place, one.column))
        found.append(Compared(one, other, _state(one, other)))
    return found


def _state(source: Numbered, replica: Numbered | None) -> State:
    if replica is None:
        return State.MISSING
    if not (source.readable and replica.readable):
        return State.UNREADABLE
    if source.last_value is None:
        return State.READY
    if replica.last_value is None:
        return State.BEHIND
    ahead = replica.last_value - source.last_value
    # Counted the way the replica's own will go on.
    return State.READY if ahead * (1 if replica.increment > 0 else -1) >= 0 else State.BEHIND
