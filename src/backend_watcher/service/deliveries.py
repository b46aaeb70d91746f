"""
The threads that deliver: one for each subscription, with an event loop of its own.

A function that blocks its loop, or eats the CPU, holds up its own subscription and no other, and never capture.
Subscriptions that were given the very same sink object share a thread: an object's connections belong to one loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import structlog

from backend_watcher.contracts import Clock, Journal, Observer
from backend_watcher.delivery.deliver import SubscriptionStopped
from backend_watcher.delivery.run import SubscriptionLoop
from backend_watcher.delivery.subscription import Start, Subscription
from backend_watcher.events.position import START, Position
from backend_watcher.threads import LoopThread

log = structlog.get_logger("watcher")

T = TypeVar("T")

DRAIN_SECONDS_MAX = 10.0


class Deliveries:
    """Every subscription's loop, and the thread it runs in."""

    def __init__(
        self, subscriptions: Sequence[Subscription], journal: Journal, clock: Clock, observer: Observer
    ) -> None:
        self._subscriptions = subscriptions
        self._journal = journal
        self._clock = clock
        self._observer = observer
        self._loops: dict[str, SubscriptionLoop] = {}
        self._threads: dict[str, LoopThread] = {}

    @property
    def names(self) -> list[str]:
        """The names of the subscriptions, sorted."""
        return sorted(self._loops)

    async def start(self) -> None:
        """Begin to deliver, each subscription from its cursor on."""
        cursors = await self._journal.cursors()
        for subscription in self._subscriptions:
            cursor = self._begin(subscription, cursors)
            self._loops[subscription.name] = SubscriptionLoop(
                subscription, self._journal, cursor, self._clock, self._observer
            )
        for name in sorted(cursors.keys() - self._loops.keys()):
            log.warning(
                "a cursor without a subscription holds back retention",
                subscription=name,
                remedy=f"If it is gone for good: `watcher forget {name}`.",
            )
        for group in _by_sink(self._subscriptions):
            thread = LoopThread(f"watcher-{group[0]}", self._runner([self._loops[name] for name in group]))
            self._threads |= dict.fromkeys(group, thread)
            thread.start()

    def _begin(self, subscription: Subscription, cursors: Mapping[str, Position]) -> Position:
        cursor = cursors.get(subscription.name)
        if cursor is None:
            cursor = START if subscription.options.start is Start.OLDEST else self._journal.last_position
            self._journal.save_cursor(subscription.name, cursor)
        return cursor

    def _runner(self, loops: Sequence[SubscriptionLoop]) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            await asyncio.gather(*map(_run, loops))

        return run

    async def ask(self, name: str, question: Callable[[SubscriptionLoop], Coroutine[Any, Any, T]]) -> T:
        """Ask a subscription's loop something, in its own thread. Raises KeyError, RuntimeError."""
        loop = self._loops[name]
        return await self._threads[name].ask(lambda: question(loop))

    async def drain(self) -> None:
        """Let all deliver what they have begun, for a while; end them then."""
        threads = set(self._threads.values())
        ends = {thread.finished: thread for thread in threads}
        if not ends:
            return
        # Not awaited: a thread that is stuck does not answer.
        told = [asyncio.create_task(self._drain(name, loop)) for name, loop in self._loops.items()]
        _, late = await asyncio.wait(ends, timeout=DRAIN_SECONDS_MAX)
        for end in late:
            log.warning("not drained in time; what was under way is delivered again", thread=ends[end].name)
        await asyncio.gather(*(ends[end].stop() for end in late))
        for task in told:
            task.cancel()

    async def _drain(self, name: str, loop: SubscriptionLoop) -> None:
        async def drain() -> None:
            loop.drain()

        try:
            await self._threads[name].ask(drain)
        except RuntimeError:
            return  # it has ended by itself


async def _run(loop: SubscriptionLoop) -> None:
    try:
        await loop.run()
    except SubscriptionStopped as stopped:
        log.error("subscription stopped; the others go on", error=str(stopped))  # noqa: TRY400 no traceback for people


def _by_sink(subscriptions: Sequence[Subscription]) -> list[list[str]]:
    groups: dict[int, list[str]] = {}
    for subscription in subscriptions:
        groups.setdefault(id(subscription.sink), []).append(subscription.name)
    return list(groups.values())
