"""
The threads that deliver: one for each subscription, with an event loop of its own.

A function that blocks its loop, or eats the CPU, holds up its own subscription and no other, and never capture.
Subscriptions that were given the very same sink object share a thread: an object's connections belong to one loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import structlog

from backend_watcher.contracts import Clock, Journal, Observer
from backend_watcher.delivery.deliver import SubscriptionStopped, Taken
from backend_watcher.delivery.run import SubscriptionLoop
from backend_watcher.delivery.subscription import Start, Subscription
from backend_watcher.errors import JournalBroken
from backend_watcher.events.position import START, Position
from backend_watcher.service.backfilling import begin_with_rows
from backend_watcher.service.stall import Look, StallWatch
from backend_watcher.threads import LoopThread

log = structlog.get_logger("watcher")

T = TypeVar("T")

DRAIN_SECONDS_MAX = 10.0
LOOK_SECONDS = 1.0


class Group:
    """Subscriptions that share a thread; nearly always one."""

    def __init__(self, loops: Mapping[str, SubscriptionLoop], clock: Clock) -> None:
        self.loops = dict(loops)
        self.thread = LoopThread(f"watcher-{next(iter(loops))}", self._run)
        self._clock = clock
        self._question: asyncio.Task[None] | None = None
        self.answered_at = clock.now()

    async def _run(self) -> None:
        await asyncio.gather(*map(_run, self.loops.values()))

    def look(self) -> None:
        """Ask the thread for a sign of life, unless it still owes one."""
        if self._question is None or self._question.done():
            self._question = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        # Ended, it has said so itself.
        with contextlib.suppress(RuntimeError):
            await self.thread.ask(_nothing)
        self.answered_at = self._clock.now()

    async def drain(self) -> None:
        """Let them deliver what they have begun, for a while; end them then."""

        async def drain() -> None:
            for loop in self.loops.values():
                loop.drain()

        # Not awaited: a thread that is stuck does not answer.
        told = asyncio.create_task(_quietly(self.thread.ask(drain)))
        _, late = await asyncio.wait([self.thread.finished], timeout=DRAIN_SECONDS_MAX)
        if late:
            log.warning("not drained in time; what was under way is delivered again", thread=self.thread.name)
            await self.thread.stop()
        for task in filter(None, (told, self._question)):
            task.cancel()


class Deliveries:
    """Every subscription's loop, and the thread it runs in; `taken` says who is told of what its sink took."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        observer: Observer,
        taken: Callable[[Subscription], Taken | None] = lambda _: None,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._observer = observer
        self._taken = taken
        self._subscriptions: dict[str, Subscription] = {}
        self._groups: dict[str, Group] = {}
        self._stalls = StallWatch()
        self._watching: asyncio.Task[None] | None = None
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Holds the error of a thread that ended by one: the journal is broken, or we are."""

    @property
    def names(self) -> list[str]:
        """The names of the subscriptions, sorted."""
        return sorted(self._groups)

    async def run_these(self, subscriptions: Sequence[Subscription]) -> None:
        """
        Run these from now on, each from its cursor on.

        One that runs already and is the same object goes on undisturbed; others that run are drained first. A
        subscription that is no longer wanted keeps its cursor: only `forget` loses it.
        """
        wanted = {subscription.name: subscription for subscription in subscriptions}
        groups = {name: group for group in _by_sink(subscriptions) for name in group}
        ending = {
            group
            for name, group in self._groups.items()
            if wanted.get(name) is not self._subscriptions[name] or list(group.loops) != groups[name]
        }
        await asyncio.gather(*(group.drain() for group in ending))
        for name in [name for name, group in self._groups.items() if group in ending]:
            del self._groups[name]
            self._stalls.forget(name)
        self._subscriptions = wanted
        cursors = await self._journal.cursors()
        await begin_with_rows(self._journal, subscriptions, cursors)
        for names in _by_sink(subscriptions):
            if names[0] not in self._groups:
                self._begin(names, cursors)
        self._tell_of_others(cursors)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    def _begin(self, names: Sequence[str], cursors: Mapping[str, Position]) -> None:
        loops = {}
        for name in names:
            subscription = self._subscriptions[name]
            cursor = self._cursor(subscription, cursors)
            taken = self._taken(subscription)
            loops[name] = SubscriptionLoop(
                subscription, self._journal, cursor, self._clock, self._observer, taken=taken
            )
        group = Group(loops, self._clock)
        self._groups |= dict.fromkeys(names, group)
        group.thread.finished.add_done_callback(self._ended)
        group.thread.start()

    def _ended(self, finished: asyncio.Future[None]) -> None:
        error = None if finished.cancelled() else finished.exception()
        if error is not None and not self.broken.done():
            self.broken.set_exception(error)

    def _cursor(self, subscription: Subscription, cursors: Mapping[str, Position]) -> Position:
        cursor = cursors.get(subscription.name)
        if cursor is None:
            cursor = START if subscription.options.start is Start.OLDEST else self._journal.last_position
            self._journal.save_cursor(subscription.name, cursor)
        return cursor

    def _tell_of_others(self, cursors: Mapping[str, Position]) -> None:
        for name in sorted(cursors.keys() - self._groups.keys()):
            log.warning(
                "a cursor without a subscription holds back retention",
                subscription=name,
                remedy=f"If it is gone for good: `watcher forget {name}`.",
            )

    async def ask(self, name: str, question: Callable[[SubscriptionLoop], Coroutine[Any, Any, T]]) -> T:
        """Ask a subscription's loop something, in its own thread. Raises KeyError, RuntimeError."""
        group = self._groups[name]
        return await group.thread.ask(lambda: question(group.loops[name]))

    async def _watch(self) -> None:
        """Notice what stands still."""
        while True:
            for name, group in self._groups.items():
                group.look()
                told = self._stalls.look(name, self._seen(name, group))
                if told is not None:
                    self._observer.subscription_state(name, *told)
            await self._clock.sleep(LOOK_SECONDS)

    def _seen(self, name: str, group: Group) -> Look:
        loop = group.loops[name]
        waits = loop.waits_on_purpose or group.thread.finished.done()
        patience = self._subscriptions[name].options.batch.seconds
        return Look(self._clock.now(), loop.cursor, self._journal.last_position, waits, patience, group.answered_at)

    async def drain(self) -> None:
        """Let all deliver what they have begun, for a while; end them then."""
        if self._watching is not None:
            self._watching.cancel()
        await asyncio.gather(*(group.drain() for group in set(self._groups.values())))


async def _run(loop: SubscriptionLoop) -> None:
    try:
        await loop.run()
    except SubscriptionStopped as stopped:
        if isinstance(stopped.__cause__, JournalBroken):
            # What one reader cannot trust, nobody can.
            raise stopped.__cause__ from None
        log.error("subscription stopped; the others go on", error=str(stopped))  # noqa: TRY400 no traceback for people


async def _nothing() -> None:
    """Answer."""


async def _quietly(question: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(RuntimeError):  # it has ended by itself
        await question


def _by_sink(subscriptions: Sequence[Subscription]) -> list[list[str]]:
    groups: dict[int, list[str]] = {}
    for subscription in subscriptions:
        groups.setdefault(id(subscription.sink), []).append(subscription.name)
    return list(groups.values())
