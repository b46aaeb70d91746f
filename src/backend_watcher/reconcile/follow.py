"""How far a subscription is, and what came of a table, as the journal's file shows it to another process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from backend_watcher.contracts import HeldChange, HeldKey, JournalState
from backend_watcher.errors import CannotVerify, SinkRejected
from backend_watcher.events.change import TRUNCATE, Change
from backend_watcher.events.chunk import Block
from backend_watcher.events.position import START, Position, format_lsn
from backend_watcher.reconcile.plan import Touched
from backend_watcher.reconcile.source import SourceTable

POLL_SECONDS = 0.05
STALL_SECONDS_MAX = 60.0
"""How long nothing may move before we stop waiting: nobody runs, or the subscription is paused or its sink is away."""

READ_BYTES = 4 << 20


class JournalFile(Protocol):
    """What is asked of a journal that another process writes."""

    def state(self) -> JournalState:
        """Say where it stands."""
        ...

    def cursors(self) -> Mapping[str, Position]:
        """Return the cursor of each subscription."""
        ...

    def held_keys(self, subscription: str) -> Sequence[HeldKey]:
        """Return the keys that a subscription holds back."""
        ...

    def held_changes(
        self, subscription: str, key_number: int | None = None, *, after: int = -1, limit: int = 1000
    ) -> Sequence[HeldChange]:
        """Return what a subscription holds back."""
        ...

    def read(self, after: Position, limit_bytes: int) -> Sequence[Block]:
        """Return blocks after a position."""
        ...


class Follower:
    """Waits for one subscription, and reads what came past it. Raises CannotVerify, JournalBroken."""

    def __init__(self, journal: JournalFile, subscription: str, stall_seconds_max: float = STALL_SECONDS_MAX) -> None:
        self._journal = journal
        self._subscription = subscription
        self._stall_seconds_max = stall_seconds_max

    async def captured(self, lsn: int) -> None:
        """Return when the journal's file has everything that was committed before an LSN."""
        await self._until(
            lambda: self._journal.state().durable_lsn >= lsn, f"the journal does not come to {format_lsn(lsn)}"
        )

    async def delivered(self, lsn: int) -> Position:
        """Return when the subscription owes nothing that was committed before an LSN, with where it stands."""
        await self.captured(lsn)
        last = self._journal.state().last or START
        await self._until(
            lambda: self._cursor() >= last,
            f"subscription {self._subscription!r} does not come to {format_lsn(last.commit_lsn)}",
        )
        return self._cursor()

    def _cursor(self) -> Position:
        cursor = self._journal.cursors().get(self._subscription)
        if cursor is None:
            raise CannotVerify(f"subscription {self._subscription!r} has not begun: it has no cursor")
        return cursor

    async def _until(self, there: Callable[[], bool], otherwise: str) -> None:
        moved = time.monotonic()
        seen: object = None
        while not there():
            stands = (self._journal.state().durable_lsn, self._journal.cursors().get(self._subscription))
            if stands != seen:
                seen, moved = stands, time.monotonic()
            if time.monotonic() - moved > self._stall_seconds_max:
                raise CannotVerify(f"{otherwise}: nothing has moved for {self._stall_seconds_max:g} s")
            await asyncio.sleep(POLL_SECONDS)

    def held(self, table: SourceTable, touches: Callable[[Change], Sequence[bytes]]) -> Touched:
        """Return the rows and entries of a table whose changes wait because they fail."""
        held = Touched()
        name = table.shape.full_name
        for key in self._journal.held_keys(self._subscription):
            held.identities |= {identity for of, identity in key.keys if of == name}
        number = -1
        while held.identities and (kept := self._journal.held_changes(self._subscription, after=number)):
            for one in kept:
                if one.change.table.full_name == name:
                    _note(one.change, table, touches, held)
            number = kept[-1].number
        return held

    def oldest(self) -> Position | None:
        """Return where the journal begins; to be asked before what is then read from `touched`."""
        return self._journal.state().first

    def touched(
        self,
        after_lsn: int,
        upto_lsn: int,
        oldest: Position | None,
        table: SourceTable,
        touches: Callable[[Change], Sequence[bytes]],
    ) -> Touched | None:
        """
        Return what the journal shows of a table between two LSNs; None where that is no longer all kept.

        What was read for a backfill is among it: it is delivered as changes are.
        """
        touched = Touched()
        name = table.shape.full_name
        after = Position(after_lsn, -1)
        while after.commit_lsn < upto_lsn and (blocks := self._journal.read(after, READ_BYTES)):
            for block in blocks:
                if name in block.tables:
                    for change in block.changes:
                        if change.table.full_name == name:
                            _note(change, table, touches, touched)
            after = blocks[-1].last
        # Asked afterwards: what was there may have been removed while it was read.
        now = self._journal.state().first
        kept = oldest is None or now == oldest or (now is not None and now <= Position(after_lsn, -1))
        return touched if kept else None


def _note(change: Change, table: SourceTable, touches: Callable[[Change], Sequence[bytes]], touched: Touched) -> None:
    if change.code == TRUNCATE:
        touched.everything = True
        return
    touched.identities.update(identity for _, identity in change.identities())
    try:
        names = touches(change)
    except SinkRejected:
        # It is not written either; the row is known by its key.
        return
    keys = table.keys_of(change)
    for name in names:
        touched.names.setdefault(name, set()).update(keys)
