"""The journal in one SQLite file: the embedded default."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from backend_watcher.contracts import Audit, HeldChange, HeldKey, Identity, JournalState
from backend_watcher.errors import JournalBroken, JournalError
from backend_watcher.events.chunk import Block, Chunk
from backend_watcher.events.position import Position
from backend_watcher.events.table import Table
from backend_watcher.events.transaction import Stream
from backend_watcher.journal import held
from backend_watcher.journal.block import UNBOUND, Stored, refuse_other_cluster, stream_of
from backend_watcher.journal.intake import QUEUE_BYTES, Group, Intake
from backend_watcher.journal.listeners import Listeners
from backend_watcher.journal.lock import Lock
from backend_watcher.journal.reader import Reader
from backend_watcher.journal.retention import Retention
from backend_watcher.journal.store import (
    Standing,
    broken_means,
    load_cursors,
    load_identity,
    load_notes,
    load_standing,
    open_to_write,
)
from backend_watcher.journal.tail import TAIL_BYTES, Tail
from backend_watcher.journal.writer import Writer

T = TypeVar("T")

QUOTA_BYTES = 10 << 30
"""Payload kept at most: with more, capture waits for the slowest subscription."""

RETAIN_BYTES = 2 << 30
"""Payload kept that every subscription has done with, for replay and for people who ask."""

RETAIN_SECONDS = 7 * 86400.0
"""How long that is kept."""


@dataclass(frozen=True, slots=True)
class _Open:
    """Everything an open journal has, so that a closed one has none of it."""

    lock: Lock
    intake: Intake
    tail: Tail
    writer: Writer
    reader: Reader
    pool: ThreadPoolExecutor


class SqliteJournal:
    """
    Keeps the contract `Journal` in the file `path`.

    Sizes are bytes of payload. `retain_seconds` and `retain_bytes` say how long what every subscription has
    done with stays readable; `quota_bytes` is where capture waits. None sets no limit. `now` gives seconds
    since 1970.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        quota_bytes: int | None = QUOTA_BYTES,
        retain_seconds: float | None = RETAIN_SECONDS,
        retain_bytes: int | None = RETAIN_BYTES,
        queue_bytes: int = QUEUE_BYTES,
        tail_bytes: int = TAIL_BYTES,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(path)
        self._rule = Retention(quota_bytes, retain_seconds, retain_bytes)
        self._queue_bytes = queue_bytes
        self._tail_bytes = tail_bytes
        self._now = now
        self._open: _Open | None = None
        self._writer: Writer | None = None
        self._stream = UNBOUND
        self._listeners = Listeners()
        self._news = Listeners()

    async def open(self) -> None:
        """Take the journal for this process, and make it if there is none. Raises JournalLocked, JournalBroken."""
        if self._open is None:
            self._open = await asyncio.to_thread(self._take)
            self._open.writer.start()

    def refuse_if_locked(self) -> None:
        """Raise JournalLocked where another process has it; makes nothing."""
        if self._lock_path.exists():
            Lock(self._lock_path).release()

    @property
    def _lock_path(self) -> Path:
        return self.path.with_name(self.path.name + ".lock")

    def _take(self) -> _Open:
        with broken_means(self.path.parent, "cannot be made", "Let the watcher write in this folder."):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = Lock(self._lock_path)
        try:
            return self._build(lock)
        except BaseException:
            lock.release()
            raise

    def _build(self, lock: Lock) -> _Open:
        connection = open_to_write(self.path)
        try:
            with broken_means(self.path, "cannot be read"):
                standing = load_standing(connection)
                identity = load_identity(connection)
                cursors = load_cursors(connection)
                notes = load_notes(connection)
            tables: dict[int, Table] = {}
            self._stream = stream_of(identity)
            tail = Tail(standing.last, tables, self._get_stream, self._tail_bytes)

            def show(chunk: Chunk, stored: Stored) -> None:
                tables.update({table.version: table for table in chunk.tables if table.version not in tables})
                tail.extend([stored])

            intake = Intake(
                last=standing.last,
                stored_bytes=standing.size_bytes,
                cursors=cursors,
                quota_bytes=self._rule.quota_bytes,
                queue_bytes=self._queue_bytes,
                show=show,
                news=self._news.tell,
                now=self._now,
            )
            reader = Reader(self.path, tables, self._get_stream)
            writer = Writer(
                path=self.path,
                connection=connection,
                intake=intake,
                tail=tail,
                tables=tables,
                rule=self._rule,
                now=self._now,
                listeners=self._listeners,
                news=self._news,
                standing=standing,
                identity=identity,
                notes=notes,
                check_owner=lock.check,
            )
        except BaseException:
            connection.close()
            raise
        self._writer = writer
        return _Open(lock, intake, tail, writer, reader, ThreadPoolExecutor(1, "journal-reader"))

    async def close(self) -> None:
        """Make everything durable, then let go. Raises JournalBroken if what was noted could not be written."""
        held, self._open = self._open, None
        if held is None:
            return
        held.intake.stop()
        await asyncio.to_thread(self._let_go, held)
        if held.intake.broken is not None:
            raise JournalBroken(held.intake.broken.message, remedy=held.intake.broken.remedy)

    def _let_go(self, held: _Open) -> None:
        held.writer.join()
        held.pool.shutdown()
        # The writing connection goes last: it takes the WAL with it.
        held.reader.close()
        held.writer.close()
        held.lock.release()

    def _held(self) -> _Open:
        if self._open is None:
            raise JournalError(f"the journal {self.path} is not open", remedy="Open it first.")
        return self._open

    def _standing(self) -> Standing:
        # The last one stays known while and after the journal closes: listeners still hear of the last group.
        if self._writer is None:
            self._held()
        assert self._writer is not None
        return self._writer.standing

    def _get_stream(self) -> Stream:
        return self._stream

    async def append(self, chunk: Chunk) -> None:
        """Queue a chunk; wait for room. Raises OutOfOrder, JournalBroken."""
        await self._held().intake.put(chunk, chunk.commit_end_lsn)

    async def advance(self, lsn: int) -> None:
        """Note that the source held nothing for us before `lsn`. Raises JournalBroken."""
        await self._held().intake.put(None, lsn)

    @property
    def durable_lsn(self) -> int:
        """Everything the source committed before this LSN is stored here."""
        return self._standing().durable_lsn

    @property
    def last_position(self) -> Position:
        """The position of the newest durable change."""
        return self._standing().last

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` from the writer's thread after each durable group."""
        return self._listeners.add(callback)

    def listen_news(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when there may be new changes to read: from whoever appended, or from the writer's thread."""
        return self._news.add(callback)

    async def read(self, after: Position, limit_bytes: int) -> Sequence[Block]:
        """Return blocks after a position: from memory at the tail, else from the file in a thread."""
        held = self._held()
        if after >= held.intake.admitted_last:
            return []
        blocks = held.tail.read(after, limit_bytes)
        if blocks is None:
            loop = asyncio.get_running_loop()
            blocks = await loop.run_in_executor(held.pool, held.reader.read, after, limit_bytes)
        return blocks

    async def cursors(self) -> Mapping[str, Position]:
        """Return the cursor of each subscription that has one, as noted."""
        return self._held().intake.cursors()

    def save_cursor(self, subscription: str, position: Position) -> None:
        """Note a cursor; an older one than noted is ignored. Raises JournalBroken."""
        self._held().intake.save_cursor(subscription, position)

    def forget_cursor(self, subscription: str) -> None:
        """Forget a subscription's cursor, and what is held for it. Raises JournalBroken."""
        intake = self._held().intake
        intake.note(held.ForgetAll(subscription))
        intake.forget_cursor(subscription)

    def hold_changes(self, subscription: str, changes: Sequence[HeldChange], key: HeldKey | None = None) -> None:
        """Keep changes of a failing key apart. Raises JournalBroken."""
        self._held().intake.note(held.hold(subscription, changes, key))

    def let_go(self, subscription: str, numbers: Sequence[int]) -> None:
        """Forget changes that were kept. Raises JournalBroken."""
        self._held().intake.note(held.LetGo(subscription, tuple(numbers)))

    def forget_key(self, subscription: str, number: int, into: int | None = None) -> None:
        """Forget a held key. Raises JournalBroken."""
        self._held().intake.note(held.ForgetKey(subscription, number, into))

    async def held_keys(self, subscription: str) -> Sequence[HeldKey]:
        """Return every key that is held."""
        return await self._read_held(lambda connection: held.load_keys(connection, subscription))

    async def held_changes(
        self, subscription: str, key_number: int | None = None, *, after: int = -1, limit: int = 1000
    ) -> Sequence[HeldChange]:
        """Return kept changes, in order. Raises JournalBroken where one is not what was kept."""
        return await self._read_held(
            lambda connection: held.load_changes(connection, self._stream, subscription, key_number, after, limit)
        )

    async def _read_held(self, load: Callable[[sqlite3.Connection], list[T]]) -> list[T]:
        open_ = self._held()
        # What was noted is not in the file yet.
        await open_.intake.settle_after()

        def read() -> list[T]:
            with broken_means(self.path, "cannot be read"), open_.reader.snapshot() as connection:
                return load(connection)

        return await asyncio.get_running_loop().run_in_executor(open_.pool, read)

    async def audit(self, entry: Audit) -> None:
        """Write down what a person did."""
        await self._held().intake.settle_after(lambda group: group.actions.append(entry))

    async def audits(self, *, limit: int = 1000) -> Sequence[Audit]:
        """Return the newest entries, oldest first."""
        return await self._read_held(lambda connection: held.load_audits(connection, limit))

    async def flush(self) -> None:
        """Return when everything noted so far is durable. Raises JournalBroken."""
        await self._held().intake.settle_after()

    async def identity(self) -> Identity | None:
        """Return what `save_identity` stored."""
        return self._held().writer.identity

    async def save_identity(self, identity: Identity, durable_lsn: int) -> None:
        """Bind the journal to a stream. Raises WrongCluster where it holds the changes of another cluster."""
        held = self._held()
        refuse_other_cluster(held.writer.identity, identity)

        def add(group: Group) -> None:
            group.identity = identity
            group.lsn = max(group.lsn, durable_lsn)

        await held.intake.settle_after(add)
        self._stream = stream_of(identity)

    async def get_note(self, name: str) -> str | None:
        """Return a small named text."""
        return self._held().writer.notes.get(name)

    async def set_note(self, name: str, text: str | None) -> None:
        """Keep, or with None forget, a small named text."""
        await self._held().intake.settle_after(lambda group: group.notes.update({name: text}))

    async def state(self) -> JournalState:
        """Say where the journal stands."""
        held = self._held()
        return held.writer.standing.state(held.intake.full)
