"""A sink and a journal that know what must hold, and say so the moment it does not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from backend_watcher.contracts import HeldChange, HeldKey, Receipt
from backend_watcher.delivery.held import Name
from backend_watcher.errors import HandlerError, PartlyWritten, SinkRejected, SinkTimeout, SinkUnavailable, SomeFailed
from backend_watcher.events.change import TRUNCATE, Change
from backend_watcher.events.position import START, Position
from backend_watcher.journal import MemoryJournal

from .feeding import Op, ticks

FATES = ("works", "works", "works", "partly", "some", "nothing", "unknown", "hangs", "cancels")


def random_ops(dice: random.Random) -> list[Op]:
    """One transaction's rows: few keys, so that they meet often."""
    kinds = ["insert", "update", "update", "update", "delete", "rekey", "truncate"]
    ops = []
    for _ in range(dice.randint(1, 8)):
        kind, key = dice.choice(kinds), dice.randint(1, 5)
        ops.append(Op("update", key, was=dice.randint(1, 5)) if kind == "rekey" else Op(kind, key))
    return ops


def cause_of(dice: random.Random) -> Exception:
    return dice.choice([SinkRejected("no"), SinkUnavailable("gone"), HandlerError("bug"), KeyError("bug")])


class ChaosSink:
    """Fails in every way there is, and refuses two batches at once that share a key."""

    def __init__(self, dice: random.Random, journal: CheckedJournal) -> None:
        self._dice = dice
        self._journal = journal
        self._active: list[Sequence[Change]] = []
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
        for other in self._active:
            assert not _names(batch) & _names(other), "two batches of one key at once"
            for some, truncates in ((batch, other), (other, batch)):
                if truncates[0].code == TRUNCATE:
                    live = {change.position for change in some} - self._journal.held_positions
                    assert not live, "a truncate is offered beside what is not held"
        self._active.append(batch)
        try:
            await ticks(self._dice.randint(0, 3))
            return await self._meet("works" if self.calm else self._dice.choice(FATES), batch)
        finally:
            self._active.remove(batch)

    async def _meet(self, fate: str, batch: Sequence[Change]) -> Receipt:
        match fate:
            case "partly":
                count = self._dice.randrange(len(batch))
                self._keep(batch[:count], durable=True)
                raise PartlyWritten(count, cause_of(self._dice))
            case "some":
                raise SomeFailed(self._some(batch))
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

    def _some(self, batch: Sequence[Change]) -> dict[int, Exception]:
        """Write some, but of each key none after the first that fails."""
        failures: dict[int, Exception] = {}
        failed: set[Name] = set()
        for place, change in enumerate(batch):
            names = set(change.identities())
            if names & failed or self._dice.random() < 0.3 or (place == len(batch) - 1 and not failures):
                failures[place] = cause_of(self._dice)
                failed |= names
            else:
                self._keep([change], durable=True)
        return failures

    def check_order(self, wanted: Sequence[Change]) -> None:
        """Every wanted change came, and of each key the last deliveries are in commit order."""
        last: dict[tuple[Position, Any], int] = {}
        for number, change in enumerate(self.writes):
            last[change.position, None] = number
            for key in (change.key, change.key_before):
                last[change.position, key] = number
        assert {position for position, _ in last} == {change.position for change in wanted}
        assert self.durable >= {position for position, _ in last}
        truncates = [c.position for c in wanted if not c.key]
        for key in [(number,) for number in range(1, 6)]:
            about = [c for c in wanted if key in (c.key, c.key_before)]
            order = [last[c.position, key] for c in about]
            assert order == sorted(order)
            for truncate in truncates:
                # What a truncate means for a row that is held comes as a delete of that row.
                at = last[truncate, ()]
                gone = max(at, last.get((truncate, key), -1))
                assert all(last[c.position, key] < gone for c in about if c.position < truncate and c.key == key)
                # Come again after a crash, it may repeat without what is known to be followed by something held: by a
                # later change, which must come last then, or by a later truncate, which the line above looks at.
                newest = max((c.position for c in about), default=truncate)
                assert newest <= max(truncates) or last[newest, key] > at


def _names(batch: Sequence[Change]) -> set[Name]:
    return {name for change in batch for name in change.identities()}


class CheckedJournal(MemoryJournal):
    """Refuses a cursor that is past a change which neither the sink nor the journal holds safely."""

    def __init__(self) -> None:
        super().__init__()
        self.sink: ChaosSink | None = None
        self.wanted: list[Position] = []
        self.highest = START
        self.reads = 0
        self.kept: dict[int, Position] = {}

    @property
    def held_positions(self) -> set[Position]:
        return set(self.kept.values())

    def hold_changes(self, subscription: str, changes: Sequence[HeldChange], key: HeldKey | None = None) -> None:
        self.kept |= {one.number: one.change.position for one in changes}
        super().hold_changes(subscription, changes, key)

    def let_go(self, subscription: str, numbers: Sequence[int]) -> None:
        for number in numbers:
            position = self.kept.pop(number)
            lost = self.sink is not None and position in self.wanted and position not in self.sink.durable
            assert not lost, f"{position} is let go and not delivered"
        super().let_go(subscription, numbers)

    def save_cursor(self, subscription: str, position: Position) -> None:
        if self.sink is not None:
            safe = self.sink.durable | self.held_positions
            owed = [wanted for wanted in self.wanted if wanted <= position and wanted not in safe]
            assert not owed, f"the cursor went to {position}, past {owed}"
        assert position >= self.highest, "the cursor went back"
        self.highest = position
        super().save_cursor(subscription, position)

    async def read(self, after: Position, limit_bytes: int) -> Sequence[Any]:
        self.reads += 1
        return await super().read(after, limit_bytes)
