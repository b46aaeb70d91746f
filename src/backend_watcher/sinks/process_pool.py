"""
Which process works for whom: so many at work at once, fairly divided among those that use them.

A process is lent for one batch. Who has the fewest gets the next one. A process that has been at one change for
STUCK_SECONDS does not count as at work: another takes its place, so that a function that hangs holds up its own
subscription and no other. Nobody has more than `processes`, so there are never more than that for each user.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Hashable

from backend_watcher.errors import SinkUnavailable
from backend_watcher.sinks.process_child import Child, ChildEndedError, ChildSilentError, end_all, started
from backend_watcher.sinks.process_wire import Kind, Refused, Setup, read

START_SECONDS_MAX = 60.0
"""How long a process may take to load the program."""

STUCK_SECONDS = 1.0


class Lease:
    """The right to use one process, for one batch; without `child` it has to be started."""

    __slots__ = ("child", "stuck", "user")

    def __init__(self, user: Hashable, child: Child | None) -> None:
        self.user = user
        self.child = child
        self.stuck = False


class _Waiter:
    """Somebody who waits for a lease, in an event loop of its own."""

    __slots__ = ("_loop", "granted", "lease", "user")

    def __init__(self, user: Hashable) -> None:
        self.user = user
        self.lease: Lease | None = None
        self._loop = asyncio.get_running_loop()
        self.granted = asyncio.Event()

    def grant(self, lease: Lease) -> None:
        self.lease = lease
        self._loop.call_soon_threadsafe(self.granted.set)


class Workers:
    """Processes that have loaded one program. Used from any thread and event loop."""

    def __init__(self, setup: Setup, processes: int) -> None:
        self.setup = setup
        self.processes = processes
        self._lock = threading.Lock()
        self._users: set[Hashable] = set()
        self._idle: list[Child] = []
        self._leases: set[Lease] = set()
        self._waiting: list[_Waiter] = []

    async def join(self, user: Hashable) -> None:
        """Say that somebody will use them, and see that the program loads. Raises SinkUnavailable."""
        with self._lock:
            self._users.add(user)
        lease = await self.lease(user)
        self.give_back(lease)

    async def leave(self, user: Hashable) -> None:
        """Say that somebody needs them no more; when nobody does, they end."""
        with self._lock:
            self._users.discard(user)
            children = self._surplus()
        if children:
            await asyncio.to_thread(end_all, children)

    async def lease(self, user: Hashable) -> Lease:
        """Wait for a process and return it. Raises SinkUnavailable where none can be started."""
        waiter = _Waiter(user)
        with self._lock:
            self._waiting.append(waiter)
            self._match()
        try:
            if waiter.lease is None:
                await waiter.granted.wait()
        except asyncio.CancelledError:
            with self._lock:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
            if waiter.lease is not None:
                self.give_back(waiter.lease)
            raise
        lease = waiter.lease
        assert lease is not None
        if lease.child is not None and not lease.child.running:
            # It ended while it had nothing to do.
            lease.child.kill_now()
            lease.child = None
        if lease.child is None:
            try:
                lease.child = await self._start()
            except BaseException:
                self.give_back(lease)
                raise
        return lease

    def give_back(self, lease: Lease) -> None:
        """Let somebody else have the process; one that ended is replaced when it is needed."""
        with self._lock:
            self._leases.discard(lease)
            if lease.child is not None:
                self._idle.append(lease.child)
            self._match()
            children = self._surplus()
        if children:
            threading.Thread(target=end_all, args=(children,), name="watcher-ending", daemon=True).start()

    def note_silence(self, lease: Lease, seconds: float) -> None:
        """Hear for how long a process has been at one change."""
        stuck = seconds >= STUCK_SECONDS
        if stuck is not lease.stuck:
            with self._lock:
                lease.stuck = stuck
                self._match()

    def _match(self) -> None:
        """Lend what can be lent. Called with the lock held, as the two below are."""
        while (waiter := self._next()) is not None:
            self._waiting.remove(waiter)
            lease = Lease(waiter.user, self._idle.pop() if self._idle else None)
            self._leases.add(lease)
            waiter.grant(lease)

    def _next(self) -> _Waiter | None:
        if not self._waiting or sum(not lease.stuck for lease in self._leases) >= self.processes:
            return None
        held = Counter(lease.user for lease in self._leases)
        allowed = [waiter for waiter in self._waiting if held[waiter.user] < self.processes]
        return min(allowed, key=lambda waiter: held[waiter.user], default=None)

    def _surplus(self) -> list[Child]:
        """Take away the idle ones that are too many."""
        children = []
        while self._idle and len(self._idle) + len(self._leases) > (self.processes if self._users else 0):
            children.append(self._idle.pop())
        return children

    async def _start(self) -> Child:
        remedy = "See what the program printed; delivery goes on by itself once it can be loaded."
        try:
            child, kind, body = await started(self.setup, START_SECONDS_MAX)
        except (ChildEndedError, ChildSilentError) as error:
            how = "ended" if isinstance(error, ChildEndedError) else f"took longer than {START_SECONDS_MAX:g} s"
            raise SinkUnavailable(
                f"a worker process {how} while it loaded {self.setup.target}", remedy=remedy
            ) from None
        except OSError as error:
            raise SinkUnavailable(f"a worker process cannot be started: {error}") from error
        if kind is not Kind.READY:
            child.kill_now()
            faults = read(body, Refused).faults
            raise SinkUnavailable(f"a worker process cannot load the program: {'; '.join(faults)}", remedy=remedy)
        return child
