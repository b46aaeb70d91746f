"""A sink and a journal that know what must hold, and say so the moment it does not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from backend_watcher.contracts import Receipt
from backend_watcher.errors import HandlerError, PartlyWritten, SinkRejected, SinkTimeout, SinkUnavailable
from backend_watcher.events.change import Change
from backend_watcher.events.position import START, Position
from backend_watcher.journal import MemoryJournal

from .feeding import Op, ticks

ALL_KEYS = "*"
FATES = ("works", "works", "works", "partly", "nothing", "unknown", "hangs", "cancels")


def random_ops(dice: random.Random) -> list[Op]:
    """One transaction's rows: few keys, so that they meet often."""
    kinds = ["insert", "update", "update", "update", "delete", "rekey", "truncate"]
    ops = []
    for _ in range(dice.randint(1, 8)):
        kind, key = dice.choice(kinds), dice.randint(1, 5)
        ops.append(Op("update", key, was=dice.randint(1, 5)) if kind == "rekey" else Op(kind, key))
    return ops


def rows_of(change: Change) -> set[Any]:
    """The keys a change is about; ALL_KEYS where it must be alone."""
    if change.lane(2) < 0:
        return {ALL_KEYS}
    return {change.key}


class ChaosSink:
    """Fails in every way there is, and refuses two batches at once that share a key."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._active: list[set[Any]] = []
        self._accepted: set[Position] = set()
        self.calm = False
        self.durable: set[Position] = set()
        self.writes: list[Change] = []

    def describe(self) -> dict[str, Any]:
        return {"kind": "chaos"}

    async def open(self) -> None:
        assert not self._active
        if not self.calm and self._dice.random() < 0.2:
            raise SinkUnavailable("not yet")

    async def close(self) -> None:
        # Nothing of the last life may still be writing when the next begins.
        assert not self._active
        self._accepted.clear()

    async def flush(self) -> None:
        await ticks(self._dice.randint(0, 2))
        if not self.calm and self._dice.random() < 0.2:
            raise SinkUnavailable("the flush failed")
        self.durable |= self._accepted

    async def write(self, batch: Sequence[Change]) -> Receipt:
        assert batch
        rows = set().union(*map(rows_of, batch))
        for other in self._active:
            assert ALL_KEYS not in rows | other, "a change of several keys is not alone"
            assert not rows & other, "two batches of one key at once"
        self._active.append(rows)
        try:
            await ticks(self._dice.randint(0, 3))
            return await self._meet("works" if self.calm else self._dice.choice(FATES), batch)
        finally:
            self._active.remove(rows)

    async def _meet(self, fate: str, batch: Sequence[Change]) -> Receipt:
        match fate:
            case "partly":
                count = self._dice.randrange(len(batch))
                self._keep(batch[:count], durable=True)
                causes = [SinkRejected("no"), SinkUnavailable("gone"), HandlerError("bug"), KeyError("bug")]
                raise PartlyWritten(count, self._dice.choice(causes))
            case "nothing":
                raise SinkUnavailable("gone")
            case "unknown":
                self._keep(batch, durable=False)
                raise SinkTimeout("the answer was lost")
            case "hangs":
                self._keep(batch[: self._dice.randint(0, len(batch))], durable=False)
                await asyncio.Event().wait()
            case "cancels":
                raise asyncio.CancelledError
        durable = self._dice.random() < 0.5
        self._keep(batch, durable=durable)
        if not durable:
            self._accepted |= {change.position for change in batch}
            return Receipt.ACCEPTED
        self.durable |= self._accepted
        return Receipt.DURABLE

    def _keep(self, batch: Sequence[Change], *, durable: bool) -> None:
        self.writes.extend(batch)
        if durable:
            self.durable |= {change.position for change in batch}

    def check_order(self, wanted: Sequence[Change]) -> None:
        """Every wanted change came, and of each key the last deliveries are in commit order."""
        last = {change.position: number for number, change in enumerate(self.writes)}
        assert last.keys() == {change.position for change in wanted}
        assert self.durable >= last.keys()
        for key in [(number,) for number in range(1, 6)]:
            about = [c.position for c in wanted if key in (c.key, c.key_before) or not c.key]
            order = [last[position] for position in about]
            assert order == sorted(order)


class CheckedJournal(MemoryJournal):
    """Refuses a cursor that is past a change which the sink does not hold safely."""

    def __init__(self) -> None:
        super().__init__()
        self.sink: ChaosSink | None = None
        self.wanted: list[Position] = []
        self.highest = START
        self.reads = 0

    def save_cursor(self, subscription: str, position: Position) -> None:
        if self.sink is not None:
            owed = [wanted for wanted in self.wanted if wanted <= position and wanted not in self.sink.durable]
            assert not owed, f"the cursor went to {position}, past {owed}"
        assert position >= self.highest, "the cursor went back"
        self.highest = position
        super().save_cursor(subscription, position)

    async def read(self, after: Position, limit_bytes: int) -> Sequence[Any]:
        self.reads += 1
        return await super().read(after, limit_bytes)
