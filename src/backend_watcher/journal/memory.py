"""The journal in memory, for tests and examples: the same promises, except that nothing outlives the process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from backend_watcher.contracts import Audit, HeldChange, HeldKey, Identity, JournalState
from backend_watcher.errors import JournalBroken, JournalError
from backend_watcher.events.chunk import Block, Chunk
from backend_watcher.events.position import START, Position
from backend_watcher.events.table import Table
from backend_watcher.events.transaction import Stream
from backend_watcher.journal import held
from backend_watcher.journal.block import Stored, refuse_other_cluster, stream_of
from backend_watcher.journal.intake import Group, Intake, keep
from backend_watcher.journal.listeners import Listeners
from backend_watcher.journal.retention import Retention, doomed
from backend_watcher.journal.store import Standing
from backend_watcher.journal.tail import Tail


class MemoryJournal:
    """
    Keeps the contract `Journal`. What is noted is durable at once, or after `hold()` when `release()` says so.

    It keeps its content over `close` and `open`, as a file would; `fail()` breaks it, as a full disk would.
    """

    def __init__(
        self,
        *,
        quota_bytes: int | None = None,
        retain_seconds: float | None = None,
        retain_bytes: int | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.limit(quota_bytes, retain_seconds, retain_bytes, now)
        self._settling = threading.RLock()
        self._storing = False
        self._holding = False
        self._standing = Standing()
        self._identity: Identity | None = None
        self._stream = stream_of(None)
        self._cursors: dict[str, Position] = {}
        self._notes: dict[str, str] = {}
        self._shelf = held.Shelf()
        self._tables: dict[int, Table] = {}
        self._tail = Tail(START, self._tables, self._get_stream, None)
        self._intake: Intake | None = None
        self._listeners = Listeners()
        self._news = Listeners()

    def limit(
        self,
        quota_bytes: int | None = None,
        retain_seconds: float | None = None,
        retain_bytes: int | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Set other limits, from the next `open` on."""
        self._rule = Retention(quota_bytes, retain_seconds, retain_bytes)
        self._now = now

    def _get_stream(self) -> Stream:
        return self._stream

    def hold(self) -> None:
        """From now on nothing becomes durable."""
        self._holding = True

    def release(self) -> None:
        """Make durable what was held back, and everything after it at once."""
        self._holding = False
        self._settle()

    def fail(self, message: str = "the disk is full") -> None:
        """Behave as after a write that failed."""
        self._held().fail(Group(), JournalBroken(message))
        self._tail.withdraw(self._standing.last)

    def crash(self) -> None:
        """End as a killed process does: what is not durable is gone. The next `open` begins with what was."""
        self._held().fail(Group(), JournalBroken("the process was killed"))
        self._tail.withdraw(self._standing.last)
        self._intake = None
        self._holding = False

    async def open(self) -> None:
        """Begin, or begin again with what was durable."""
        if self._intake is None:
            self._intake = Intake(
                last=self._standing.last,
                stored_bytes=self._standing.size_bytes,
                cursors=dict(self._cursors),
                quota_bytes=self._rule.quota_bytes,
                wake=self._settle,
                show=self._show,
                news=self._news.tell,
                now=self._now,
            )

    async def close(self) -> None:
        """Make everything durable, then let go. Raises JournalBroken if that was not possible."""
        intake = self._intake
        if intake is None:
            return
        self._holding = False
        intake.stop()
        self._settle()
        self._intake = None
        if intake.broken is not None:
            raise JournalBroken(intake.broken.message, remedy=intake.broken.remedy)

    def _held(self) -> Intake:
        if self._intake is None:
            raise JournalError("the journal is not open", remedy="Open it first.")
        return self._intake

    def _settle(self) -> None:
        """Make durable what gathered. A listener may note more; that is taken in the next round."""
        with self._settling:
            if self._storing:
                return
            self._storing = True
            try:
                while not self._holding and self._intake is not None and (group := self._intake.take_now()) is not None:
                    self._store(group, self._intake)
            finally:
                self._storing = False

    def _show(self, chunk: Chunk, stored: Stored) -> None:
        self._tables.update({table.version: table for table in chunk.tables})
        self._tail.extend([stored])

    def _store(self, group: Group, intake: Intake) -> None:
        blocks = group.blocks
        if group.identity is not None:
            self._identity = group.identity
            self._stream = stream_of(group.identity)
        keep(self._notes, group.notes)
        keep(self._cursors, group.cursors)
        for action in group.actions:
            self._shelf.write(action)
        old = self._standing
        standing = replace(
            old,
            durable_lsn=max(old.durable_lsn, group.lsn),
            last=blocks[-1].last if blocks else old.last,
            blocks=old.blocks + len(blocks),
            size_bytes=old.size_bytes + group.size_bytes,
        )
        self._standing = self._trim(group, standing)
        intake.settle(group, self._standing.size_bytes)
        self._listeners.tell()
        group.tell()

    def _trim(self, group: Group, standing: Standing) -> Standing:
        kept = [stored for stored in self._tail.oldest() if stored.last <= standing.last]

        def oldest() -> Iterator[tuple[Position, int, float]]:
            for stored in kept:
                yield stored.last, len(stored.payload), stored.captured_at

        count, freed = doomed(oldest(), standing.size_bytes, self._rule, group.pressure, self._now())
        if count:
            self._tail.forget(kept[count - 1].last)
        left: Stored | None = kept[count] if count < len(kept) else None
        return replace(
            standing,
            blocks=standing.blocks - count,
            size_bytes=standing.size_bytes - freed,
            first=left.first if left is not None else None,
            oldest_time=left.captured_at if left is not None else None,
        )

    async def append(self, chunk: Chunk) -> None:
        """Take a chunk; wait for room. Raises OutOfOrder, JournalBroken."""
        await self._held().put(chunk, chunk.commit_end_lsn)

    async def advance(self, lsn: int) -> None:
        """Note that the source held nothing for us before `lsn`."""
        await self._held().put(None, lsn)

    @property
    def durable_lsn(self) -> int:
        """Everything the source committed before this LSN is stored here."""
        return self._standing.durable_lsn

    @property
    def last_position(self) -> Position:
        """The position of the newest durable change."""
        return self._standing.last

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after each durable group, from whatever thread made it durable."""
        return self._listeners.add(callback)

    def listen_news(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback`, from whoever appended, when there are new changes to read."""
        return self._news.add(callback)

    async def read(self, after: Position, limit_bytes: int) -> Sequence[Block]:
        """Return blocks after a position."""
        self._held()
        return self._tail.read(after, limit_bytes) or []

    async def cursors(self) -> Mapping[str, Position]:
        """Return the cursor of each subscription that has one."""
        return self._held().cursors()

    def save_cursor(self, subscription: str, position: Position) -> None:
        """Note a cursor; an older one than noted is ignored."""
        self._held().save_cursor(subscription, position)

    def forget_cursor(self, subscription: str) -> None:
        """Forget a subscription's cursor, and what is held for it."""
        self._held().note(held.ForgetAll(subscription))
        self._held().forget_cursor(subscription)

    def hold_changes(self, subscription: str, changes: Sequence[HeldChange], key: HeldKey | None = None) -> None:
        """Keep changes of a failing key apart."""
        self._held().note(held.hold(subscription, changes, key))

    def let_go(self, subscription: str, numbers: Sequence[int]) -> None:
        """Forget changes that were kept."""
        self._held().note(held.LetGo(subscription, tuple(numbers)))

    def forget_key(self, subscription: str, number: int, into: int | None = None) -> None:
        """Forget a held key."""
        self._held().note(held.ForgetKey(subscription, number, into))

    async def held_keys(self, subscription: str) -> Sequence[HeldKey]:
        """Return every key that is held."""
        await self.flush()
        return self._shelf.load_keys(subscription)

    async def held_changes(
        self, subscription: str, key_number: int | None = None, *, after: int = -1, limit: int = 1000
    ) -> Sequence[HeldChange]:
        """Return kept changes, in order."""
        await self.flush()
        return self._shelf.load_changes(self._stream, subscription, key_number, after, limit)

    async def audit(self, entry: Audit) -> None:
        """Write down what a person did."""
        await self._held().settle_after(lambda group: group.actions.append(entry))

    async def audits(self, *, limit: int = 1000) -> Sequence[Audit]:
        """Return the newest entries, oldest first."""
        await self.flush()
        return self._shelf.audits[-limit:]

    async def flush(self) -> None:
        """Return when everything noted so far is durable."""
        await self._held().settle_after()

    async def identity(self) -> Identity | None:
        """Return what `save_identity` stored."""
        self._held()
        return self._identity

    async def save_identity(self, identity: Identity, durable_lsn: int) -> None:
        """Bind the journal to a stream. Raises WrongCluster where it holds the changes of another cluster."""
        refuse_other_cluster(self._identity, identity)

        def add(group: Group) -> None:
            group.identity = identity
            group.lsn = max(group.lsn, durable_lsn)

        await self._held().settle_after(add)

    async def get_note(self, name: str) -> str | None:
        """Return a small named text."""
        self._held()
        return self._notes.get(name)

    async def set_note(self, name: str, text: str | None) -> None:
        """Keep, or with None forget, a small named text."""
        await self._held().settle_after(lambda group: group.notes.update({name: text}))

    async def state(self) -> JournalState:
        """Say where the journal stands."""
        return self._standing.state(self._held().full)
