"""
What stands between those who append and the one who writes: a bounded queue, and the order to wait in.

Everything noted gathers in one `Group`. The writer takes the whole group, makes it durable in one go, and
meanwhile the next one gathers: the busier it is, the more changes share an fsync.

An append waits while the queue is full or the quota leaves no room. Waiting blocks no event loop: each
waiter leaves a future, and who makes room lets waiters in, strictly in the order they came, so chunks and
`advance` stay in order.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeVar

from backend_watcher.contracts import Identity
from backend_watcher.errors import JournalBroken, JournalError, OutOfOrder
from backend_watcher.events.chunk import Chunk
from backend_watcher.events.position import Position
from backend_watcher.journal.block import Stored, seal
from backend_watcher.journal.held import Action
from backend_watcher.journal.retention import Pressure

T = TypeVar("T")

QUEUE_BYTES = 16 << 20
"""Payload that may be queued or under way to the disk; more waits."""

CURSOR_SECONDS = 0.1
"""How long a cursor waits for a group to travel with before it gets one of its own."""


class Ticket:
    """Somebody waiting in an event loop, told from any thread."""

    __slots__ = ("future", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()

    def tell(self, error: BaseException | None = None) -> None:
        """Wake the waiter, with an error if there is one."""
        # A loop that is closed has nobody left to tell.
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._tell, error)

    def _tell(self, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)


class Group:
    """What is made durable together."""

    __slots__ = (
        "actions",
        "blocks",
        "chunks",
        "cursors",
        "identity",
        "lsn",
        "notes",
        "pressure",
        "size_bytes",
        "tickets",
    )

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.blocks: list[Stored] = []
        self.size_bytes = 0
        self.lsn = 0
        self.actions: list[Action] = []
        self.notes: dict[str, str | None] = {}
        self.identity: Identity | None = None
        self.tickets: list[Ticket] = []
        # Filled in when the group is taken.
        self.cursors: dict[str, Position | None] = {}
        self.pressure = Pressure(None, 0)

    def tell(self) -> None:
        """Wake those who waited for this group, after the listeners have heard of it."""
        for ticket in self.tickets:
            ticket.tell()

    def __bool__(self) -> bool:
        return bool(self.chunks or self.lsn or self.actions or self.notes or self.identity or self.tickets)


class _Waiter:
    __slots__ = ("chunk", "lsn", "size_bytes", "ticket")

    def __init__(self, chunk: Chunk | None, lsn: int) -> None:
        self.chunk = chunk
        self.lsn = lsn
        self.size_bytes = len(chunk.payload) if chunk is not None else 0
        self.ticket = Ticket()


class Intake:
    """The queue of one open journal. `wake` is called, without the lock, when there is something to take."""

    def __init__(
        self,
        *,
        last: Position,
        stored_bytes: int,
        cursors: dict[str, Position],
        quota_bytes: int | None,
        queue_bytes: int = QUEUE_BYTES,
        wake: Callable[[], None] | None = None,
        show: Callable[[Chunk, Stored], None] | None = None,
        news: Callable[[], None] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._wake = wake if wake is not None else self._notify
        self._show = show
        self._news = news
        self._now = now
        self._quota_bytes = quota_bytes
        self._queue_bytes = queue_bytes
        self._stored_bytes = stored_bytes
        # Queued, and under way to the disk.
        self._held_bytes = 0
        self._admitted_last = last
        self._noted_last = last
        self._group = Group()
        self._waiting: deque[_Waiter] = deque()
        self._cursors = cursors
        self._dirty: dict[str, Position | None] = {}
        self._dirty_until = 0.0
        self._nudged = False
        self._stopping = False
        self._disk_full = False
        self._broken: JournalBroken | None = None

    # --- for those who append, in any thread and event loop ---

    async def put(self, chunk: Chunk | None, lsn: int) -> None:
        """Queue a chunk, or only an LSN; wait for room."""
        with self._changed:
            self._check()
            if chunk is not None:
                self._check_order(chunk)
                self._noted_last = chunk.last
            waiter = None
            if not self._waiting and self._has_room(len(chunk.payload) if chunk is not None else 0):
                self._admit(chunk, lsn)
            else:
                waiter = _Waiter(chunk, lsn)
                self._waiting.append(waiter)
                self._nudged = True
        if waiter is None and chunk is not None:
            self._tell_news()
        self._wake()
        if waiter is not None:
            await self._await(waiter)

    async def _await(self, waiter: _Waiter) -> None:
        try:
            await waiter.ticket.future
        except asyncio.CancelledError:
            with self._changed:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                    left = [other.chunk.last for other in self._waiting if other.chunk is not None]
                    self._noted_last = left[-1] if left else self._admitted_last
                    self._let_in()
            self._tell_news()
            self._wake()
            raise

    def _check(self) -> None:
        if self._broken is not None:
            raise JournalBroken(self._broken.message, remedy=self._broken.remedy)
        if self._stopping:
            raise JournalError("the journal is closed", remedy="Open it first.")

    def _check_order(self, chunk: Chunk) -> None:
        if chunk.first <= self._noted_last:
            raise OutOfOrder(f"a chunk begins at {chunk.first}, but the journal already has {self._noted_last}")
        if chunk.last < chunk.first:
            raise OutOfOrder(f"a chunk begins at {chunk.first} and ends at {chunk.last}")

    def _has_room(self, size_bytes: int) -> bool:
        # What is larger than the whole queue or quota goes in alone, or it would wait for ever.
        if size_bytes == 0:
            return True
        queue = self._held_bytes == 0 or self._held_bytes + size_bytes <= self._queue_bytes
        return queue and self._lacking_bytes(size_bytes) <= 0

    def _lacking_bytes(self, size_bytes: int) -> int:
        """Return how many bytes the quota lacks for `size_bytes` more."""
        used = self._stored_bytes + self._held_bytes
        if self._quota_bytes is None or used == 0:
            return 0
        return used + size_bytes - self._quota_bytes

    def _tell_news(self) -> None:
        # Readers first: they are quick, and the writer is about to wait for the disk.
        if self._news is not None:
            self._news()

    def _admit(self, chunk: Chunk | None, lsn: int) -> None:
        if chunk is not None:
            stored = seal(chunk, self._now())
            self._group.blocks.append(stored)
            if self._show is not None:
                self._show(chunk, stored)
            self._group.chunks.append(chunk)
            self._group.size_bytes += len(chunk.payload)
            self._held_bytes += len(chunk.payload)
            self._admitted_last = chunk.last
        self._group.lsn = max(self._group.lsn, lsn)

    def _let_in(self) -> bool:
        """Admit who fits now; say whether anybody did."""
        before = self._admitted_last
        while self._broken is None and self._waiting and self._has_room(self._waiting[0].size_bytes):
            waiter = self._waiting.popleft()
            self._admit(waiter.chunk, waiter.lsn)
            waiter.ticket.tell()
        return self._admitted_last != before

    async def settle_after(self, add: Callable[[Group], None] | None = None) -> None:
        """Add something to the gathering group; return when it and everything before it is durable."""
        with self._changed:
            self._check()
            if add is not None:
                add(self._group)
            ticket = Ticket()
            self._group.tickets.append(ticket)
        self._wake()
        await ticket.future

    def note(self, action: Action) -> None:
        """Note what is to be kept apart, or forgotten there; durable with or before each cursor noted later."""
        with self._changed:
            self._check()
            self._group.actions.append(action)
        self._wake()

    def save_cursor(self, subscription: str, position: Position) -> None:
        """Note a cursor, unless it is older than the one noted."""
        with self._changed:
            self._check()
            known = self._cursors.get(subscription)
            if known is not None and position <= known:
                return
            self._cursors[subscription] = position
            first = self._note_cursor(subscription, position)
        if first:
            self._wake()

    def forget_cursor(self, subscription: str) -> None:
        """Note that a subscription is gone."""
        with self._changed:
            self._check()
            self._cursors.pop(subscription, None)
            first = self._note_cursor(subscription, None)
        if first:
            self._wake()

    def _note_cursor(self, subscription: str, position: Position | None) -> bool:
        """Return whether the writer must hear of it now."""
        if self._waiting:
            self._nudged = True
        if not self._dirty:
            self._dirty_until = time.monotonic() + CURSOR_SECONDS
        first = not self._dirty
        self._dirty[subscription] = position
        return first or self._nudged

    def cursors(self) -> dict[str, Position]:
        """Return every cursor noted."""
        with self._changed:
            return dict(self._cursors)

    @property
    def admitted_last(self) -> Position:
        """The position of the newest change taken, durable or not."""
        return self._admitted_last

    @property
    def full(self) -> bool:
        """Whether somebody waits for the quota, or the writer for the disk."""
        with self._changed:
            return self._disk_full or (bool(self._waiting) and self._lacking_bytes(self._waiting[0].size_bytes) > 0)

    # --- for the one who writes ---

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify()

    def nudge(self) -> None:
        """Ask for one more group, even if it is empty."""
        with self._changed:
            self._nudged = True

    def take(self, idle_seconds: float) -> Group | None:
        """Wait for a group, an empty one after `idle_seconds`; None when stopped and nothing is left."""
        until = time.monotonic() + idle_seconds
        with self._changed:
            while not (self._group or self._nudged or self._stopping):
                limit = min(until, self._dirty_until) if self._dirty else until
                seconds = limit - time.monotonic()
                if seconds <= 0:
                    break
                self._changed.wait(seconds)
            if self._stopping and not self._group and not self._dirty:
                return None
            return self._take()

    def take_now(self) -> Group | None:
        """Return what gathered, None if that is nothing."""
        with self._changed:
            return self._take() if self._group or self._dirty or self._nudged else None

    def _take(self) -> Group:
        group, self._group = self._group, Group()
        group.cursors, self._dirty = self._dirty, {}
        self._nudged = False
        lacking = self._lacking_bytes(self._waiting[0].size_bytes) if self._waiting else 0
        oldest = min(self._cursors.values()) if self._cursors else None
        group.pressure = Pressure(oldest, max(lacking, 0))
        return group

    def wait_for_disk(self, seconds: float) -> bool:
        """Note that the disk is full, and wait; say whether to try again, which nobody does who is stopping."""
        with self._changed:
            self._disk_full = True
            return not self._changed.wait_for(lambda: self._stopping, seconds)

    def settle(self, group: Group, stored_bytes: int) -> None:
        """Say that a group is durable, and how much is stored now."""
        with self._changed:
            self._disk_full = False
            self._held_bytes -= group.size_bytes
            self._stored_bytes = stored_bytes
            admitted = self._let_in()
        if admitted:
            self._tell_news()

    def refuse(self, error: JournalBroken) -> None:
        """Admit nothing from now on; who waits is told by `fail`."""
        with self._changed:
            self._broken = error

    def fail(self, group: Group, error: JournalBroken) -> None:
        """Say that a group could not be written: nobody who waits will be served."""
        with self._changed:
            self._broken = error
            tickets = [*group.tickets, *self._group.tickets, *(waiter.ticket for waiter in self._waiting)]
            self._waiting.clear()
            self._group = Group()
            self._dirty = {}
        for ticket in tickets:
            ticket.tell(JournalBroken(error.message, remedy=error.remedy))

    def stop(self) -> None:
        """Take nothing more; who waits is turned away, what is queued is still to be written."""
        with self._changed:
            self._stopping = True
            waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            waiter.ticket.tell(JournalError("the journal was closed before there was room", remedy="Open it first."))
        self._wake()

    @property
    def broken(self) -> JournalBroken | None:
        """Why nothing more is accepted, if that is so."""
        return self._broken


def keep(known: dict[str, T], news: Mapping[str, T | None]) -> None:
    """Put news into what is known; None forgets."""
    for name, value in news.items():
        if value is None:
            known.pop(name, None)
        else:
            known[name] = value
