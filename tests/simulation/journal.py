"""A journal that knows what must hold, says so the moment it does not, and can be killed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from backend_watcher.contracts import HeldChange, HeldKey
from backend_watcher.delivery.held import Name
from backend_watcher.events.change import DELETE
from backend_watcher.events.chunk import Chunk
from backend_watcher.events.packed import unpack
from backend_watcher.events.position import START, Position
from backend_watcher.journal import MemoryJournal
from backend_watcher.journal.held import Kept
from backend_watcher.testing.builders import STREAM

from .sink import Sink, Violation

NAME = "cache"


class Journal(MemoryJournal):
    """Remembers every chunk, as the source would until it is confirmed."""

    def __init__(self, sink: Sink, seen: Counter[str], parked_max: int, coalesces: bool) -> None:
        super().__init__()
        self._sink = sink
        self._seen = seen
        self._parked_max = parked_max
        self.coalesces = coalesces
        self.names: dict[Position, list[Name]] = {}
        self.sent: list[Chunk] = []
        self.wanted: list[Position] = []
        self.truncates: set[Position] = set()
        self.kept: dict[int, Position] = {}
        self.parked: set[int] = set()
        self.discarded: set[Position] = set()
        self.discarding = 0
        self.deaths = 0

    async def append(self, chunk: Chunk) -> None:
        if not self.sent or chunk.first > self.sent[-1].last:
            self.sent.append(chunk)
        await super().append(chunk)

    async def die(self) -> None:
        """Lose what is not durable, and be opened again; the source sends what was lost once more."""
        self.deaths += 1
        self._seen["crash"] += 1
        self.crash()
        await self.open()
        shelf: dict[tuple[str, int], Kept] = self._shelf.changes
        self.kept = {n: unpack(kept.payload, kept.table, STREAM).position for (_, n), kept in shelf.items()}
        self._seen["crash_with_held"] += bool(self.kept)
        for chunk in self.sent:
            if chunk.first > self.last_position:
                await super().append(chunk)

    def hold_changes(self, subscription: str, changes: Sequence[HeldChange], key: HeldKey | None = None) -> None:
        for one in changes:
            follows = one.change.code == DELETE and one.change.position in self.truncates
            if len(self.kept) >= self._parked_max and not follows:
                raise Violation(f"{len(self.kept) + 1} changes are held")
            if one.number in self.kept:
                raise Violation(f"number {one.number} is given twice")
            self.kept[one.number] = one.change.position
            self._seen["truncate_joined"] += follows
        if key is not None:
            self._seen["held"] += bool(changes)
            self._seen["joined"] += key.changes > 1
            self._seen["parked"] += key.parked
        super().hold_changes(subscription, changes, key)

    def let_go(self, subscription: str, numbers: Sequence[int]) -> None:
        for number in numbers:
            position = self.kept.pop(number)
            if position not in self.wanted or self.is_done(position):
                continue
            if not self.discarding:
                raise Violation(f"{position} is let go, and was not delivered")
            self.discarded.add(position)
        super().let_go(subscription, numbers)

    def forget_key(self, subscription: str, number: int, into: int | None = None) -> None:
        self._seen["merged" if into is not None else "released"] += 1
        super().forget_key(subscription, number, into)

    def save_cursor(self, subscription: str, position: Position) -> None:
        self.look(position)
        super().save_cursor(subscription, position)

    def look(self, cursor: Position = START) -> None:
        """Nothing at or before the cursor is owed."""
        kept = set(self.kept.values())
        owed = [p for p in self.wanted if p <= cursor and p not in kept and not self.is_done(p)]
        if owed:
            raise Violation(f"the cursor went to {cursor}, past {owed[0]}")

    def is_done(self, position: Position) -> bool:
        """Say that nothing is owed of a change; coalesced, a newer one of its row stands for it."""
        if position in self._sink.durable or position in self._sink.skipped or position in self.discarded:
            return True
        return self.coalesces and any(
            self._sink.newest_durable.get(name, START) > position for name in self.names.get(position, ())
        )

    def choose(self, dice: random.Random) -> int | None:
        """Return the number of some held key."""
        numbers = sorted({number for name, number in self._shelf.keys if name == NAME})
        return dice.choice(numbers) if numbers else None
