"""
Which keys are held, and what waits behind them: the decisions, without the journal. Pure.

A key that fails is held with its change; later changes of the key join it, in the order they come, and other keys do
not notice. An update of a primary key concerns two keys: if either is held it joins, and from then on both are one.
A truncate concerns every key of its table. It is delivered at once, and joins each held key as a delete of that row,
so that what is delivered there later ends as the truncate left it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from backend_watcher.contracts import HeldKey
from backend_watcher.events.change import Change
from backend_watcher.events.position import Position

Name = tuple[str, bytes]

STALE_PLANS_MAX = 1000
"""How many plans may be out of date, beside as many as there are keys, before they are made anew."""


@dataclass(slots=True)
class Held:
    """
    One held key, as it stands now.

    `names` has the rows it is about, each with the newest change of it that is kept: rows of one held key may share no
    lane, and then they come at different speeds. `due` and `delay` are monotonic seconds; with `due` None it is parked.
    `busy` counts the tries under way: two, where two keys were tried and became one meanwhile. `into` is the key that
    it became part of.
    """

    number: int
    table: str
    key: str
    names: dict[Name, Position]
    attempts: int
    first_at: float
    last_at: float
    due: float | None
    error: str
    remedy: str
    changes: int = 0
    delay: float = 0.0
    busy: int = 0
    into: Held | None = None

    def root(self) -> Held:
        """Return the key that this one is part of by now."""
        held = self
        while held.into is not None:
            held = held.into
        return held

    def note(self, due_at: float | None) -> HeldKey:
        """Return what the journal keeps of it. `due_at` is in seconds since 1970."""
        told = (self.attempts, self.first_at, self.last_at, due_at, self.error, self.remedy, self.changes)
        return HeldKey(self.number, self.table, self.key, dict(self.names), *told)


class HeldKeys:
    """The held keys of one subscription."""

    def __init__(self, next_change: int = 0) -> None:
        self._by_number: dict[int, Held] = {}
        self._by_name: dict[Name, Held] = {}
        # (due, number) of each key that is to be tried; one that is out of date is passed over when it comes up.
        self._plans: list[tuple[float, int]] = []
        self._next_key = 0
        self._next_change = next_change
        self.changes = 0

    def __bool__(self) -> bool:
        return bool(self._by_number)

    def __iter__(self) -> Iterator[Held]:
        return iter(self._by_number.values())

    def get(self, number: int) -> Held | None:
        """Return a held key by its number."""
        return self._by_number.get(number)

    def put(self, held: Held) -> None:
        """Take up a key that is held already."""
        self._by_number[held.number] = held
        for name in held.names:
            self._by_name[name] = held
        self._next_key = max(self._next_key, held.number + 1)
        self.changes += held.changes
        self.plan(held, held.due)

    def take_numbers(self, count: int) -> range:
        """Return numbers for so many changes."""
        first = self._next_change
        self._next_change += count
        return range(first, self._next_change)

    def new_number(self) -> int:
        """Return a number for a key."""
        self._next_key += 1
        return self._next_key - 1

    def blocking(self, change: Change) -> list[Held]:
        """Return the held keys that a change must wait behind: none, one, or two where it ties them together."""
        found: list[Held] = []
        for name in change.identities():
            held = self._by_name.get(name)
            if held is not None and held not in found:
                found.append(held)
        return found

    def of_table(self, table: str) -> list[Held]:
        """Return the held keys with rows of a table."""
        return [held for held in self._by_number.values() if any(name[0] == table for name in held.names)]

    def join(self, change: Change, blocking: Sequence[Held]) -> tuple[Held, Held | None]:
        """
        Put a change behind what blocks it; return the key it joined, and the other one that became part of it.

        The caller tells the journal of both.
        """
        first = min(blocking, key=lambda held: held.number)
        other = next((held for held in blocking if held is not first), None)
        if other is not None:
            self._merge(first, other)
        self._add_names(first, dict.fromkeys(change.identities(), change.position))
        first.changes += 1
        self.changes += 1
        return first, other

    def _merge(self, first: Held, other: Held) -> None:
        self._add_names(first, other.names)
        first.changes += other.changes
        # Either waits for a person: both do. Otherwise the later of the two moments.
        self.plan(first, None if first.due is None or other.due is None else max(first.due, other.due))
        first.busy += other.busy
        other.into = first
        del self._by_number[other.number]

    def _add_names(self, held: Held, names: Mapping[Name, Position]) -> None:
        for name, position in names.items():
            held.names[name] = max(held.names.get(name, position), position)
            self._by_name[name] = held

    def remove_changes(self, held: Held, count: int) -> None:
        """Note that `count` changes of a key are no longer kept."""
        held.changes -= count
        self.changes -= count

    def release(self, held: Held) -> None:
        """Forget a key that owes nothing."""
        self._by_number.pop(held.number, None)
        self.changes -= held.changes
        for name in held.names:
            if self._by_name.get(name) is held:
                del self._by_name[name]

    def left_of(self, change: Change) -> Change | None:
        """
        Return what there is to do about a change that may come again after a restart; None if nothing.

        What is not newer than the newest that is kept of its row was kept or delivered before. An update of a key may
        be that for one of its rows only: for the other one everything comes again, and this in its place.
        """
        if change.replayed:
            return change
        names = change.identities()
        new = [name for name in names if not self._knows(name, change.position)]
        if len(new) == len(names):
            return change
        return change.of_one_row(before=new[0] == names[0]) if new else None

    def _knows(self, name: Name, position: Position) -> bool:
        held = self._by_name.get(name)
        return held is not None and position <= held.names[name]

    def plan(self, held: Held, due: float | None) -> None:
        """Say when a key is to be tried; None waits for a person."""
        held.due = due
        if due is not None:
            heapq.heappush(self._plans, (due, held.number))
            if len(self._plans) > 2 * len(self._by_number) + STALE_PLANS_MAX:
                self._plans = sorted((one.due, one.number) for one in self if one.due is not None)

    def next_due(self) -> float | None:
        """Return when the next key is to be tried, None if none is."""
        under_way: list[tuple[float, int]] = []
        next_due = None
        while self._plans and next_due is None:
            held = self._planned(self._plans[0])
            if held is not None and not held.busy:
                next_due = held.due
                continue
            plan = heapq.heappop(self._plans)
            if held is not None:
                under_way.append(plan)
        for plan in under_way:
            heapq.heappush(self._plans, plan)
        return next_due

    def due(self, now: float) -> list[Held]:
        """Return the keys to be tried now, those that wait longest first."""
        up: dict[int, Held] = {}
        while self._plans and self._plans[0][0] <= now:
            held = self._planned(heapq.heappop(self._plans))
            if held is not None:
                up[held.number] = held
        for held in up.values():
            assert held.due is not None
            heapq.heappush(self._plans, (held.due, held.number))
        return [held for held in up.values() if not held.busy]

    def _planned(self, plan: tuple[float, int]) -> Held | None:
        """Return the key that a plan is of; None where that is not what is planned any more."""
        held = self._by_number.get(plan[1])
        return held if held is not None and held.due == plan[0] else None
