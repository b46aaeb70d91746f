"""
The loop of one subscription: start, drain, stop.

In between: read the journal after the cursor, route, spread over lanes, transform, batch, deliver, settle, move
the cursor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from backend_watcher import probes
from backend_watcher.contracts import Clock, Journal, Observer
from backend_watcher.delivery.batch import Batch, LaneQueue, Run
from backend_watcher.delivery.cursor import Frontier
from backend_watcher.delivery.deliver import Deliverer, SubscriptionStopped
from backend_watcher.delivery.lanes import spread
from backend_watcher.delivery.subscription import Subscription
from backend_watcher.delivery.transform import apply
from backend_watcher.events.change import Change
from backend_watcher.events.chunk import Block
from backend_watcher.events.position import Position

READ_BYTES = 1024 * 1024
"""How much is read from the journal at a time."""


class Lane:
    """One queue and the task that empties it."""

    __slots__ = ("busy", "queue", "task", "wake")

    def __init__(self, queue: LaneQueue) -> None:
        self.queue = queue
        self.wake = asyncio.Event()
        self.busy = False
        self.task: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Say that nothing waits here and nothing is under way."""
        return not self.busy and not len(self.queue)


class SubscriptionLoop:
    """Runs one subscription from its cursor on, until drained, stopped, or stopped by an error."""

    def __init__(
        self, subscription: Subscription, journal: Journal, cursor: Position, clock: Clock, observer: Observer
    ) -> None:
        self._subscription = subscription
        self._journal = journal
        self._clock = clock
        self._observer = observer
        options = subscription.options
        self._deliverer = Deliverer(subscription.name, subscription.sink, clock, observer, options.timeout_seconds)
        self._frontier = Frontier(cursor)
        self._noted = cursor
        self._lanes = [Lane(LaneQueue(options.batch)) for _ in range(options.concurrency)]
        self._news = asyncio.Event()
        self._moved = asyncio.Event()
        self._draining = False

    @property
    def cursor(self) -> Position:
        """Everything up to here is settled."""
        return self._frontier.cursor

    async def run(self) -> None:
        """
        Deliver until drained. Raises SubscriptionStopped where an error needs a person.

        Cancelling stops at once; what was not settled is delivered again after the next start.
        """
        loop = asyncio.get_running_loop()
        unlisten = self._journal.listen_news(lambda: _threadsafe_set(loop, self._news))
        try:
            await self._deliverer.open()
            async with asyncio.TaskGroup() as group:
                for lane in self._lanes:
                    lane.task = group.create_task(self._empty(lane))
                await self._fill()
                await self._until(lambda: all(lane.idle for lane in self._lanes))
                for lane in self._lanes:
                    assert lane.task is not None
                    lane.task.cancel()
        except ExceptionGroup as failures:
            # Whatever else failed, a stop is what a person has to read.
            stopped = failures.subgroup(SubscriptionStopped)
            error = (stopped or failures).exceptions[0]
            if isinstance(error, SubscriptionStopped):
                raise error from error.__cause__
            raise self._stopped(error) from error
        finally:
            unlisten()
            await self._subscription.sink.close()

    def drain(self) -> None:
        """Read no more; `run` returns when what was read is settled."""
        self._draining = True
        self._news.set()
        self._moved.set()
        for lane in self._lanes:
            lane.wake.set()

    def _stopped(self, error: Exception) -> SubscriptionStopped:
        """Say that a route, a transform or the journal failed: there is nothing to offer again."""
        name = self._subscription.name
        self._observer.failed(name, error, 1, None)
        return SubscriptionStopped(f"{name}: {error}")

    async def _fill(self) -> None:
        """Read the journal into the lanes until told to drain."""
        while not self._draining:
            self._news.clear()
            blocks = await self._journal.read(self._frontier.opened_to, READ_BYTES)
            for block in blocks:
                await self._take(block)
            if not blocks:
                await self._news.wait()

    async def _take(self, block: Block) -> None:
        """Put a block's wanted changes into the lanes, at once or in stretches that keep `max_in_flight`."""
        if self._draining:
            return
        chosen = self._subscription.route.select(block.changes, block.tables)
        limit = self._subscription.options.max_in_flight
        begin = 0
        while True:
            # Half of it has to be free first: stretches of one change each would be slow.
            await self._until(lambda: self._draining or self._frontier.in_flight <= limit // 2)
            if self._draining:
                return
            end = begin + limit - self._frontier.in_flight
            part = chosen if not begin and end >= len(chosen) else chosen[begin:end]
            if end >= len(chosen):
                await self._admit(part, block.last)
                return
            await self._admit(part, part[-1].position)
            begin = end

    async def _admit(self, changes: Sequence[Change], last: Position) -> None:
        # The key a row has in the source decides its lane; what a transform makes of it must not.
        transforms = self._subscription.transforms
        steps = [[apply(transforms, run) for run in step] for step in spread(changes, len(self._lanes))]
        owed = sum(len(run) for step in steps for run in step)
        self._frontier.open(last, owed)
        if not owed:
            self._note_cursor()
            return
        for step in steps:
            alone = len(step) == 1 and len(self._lanes) > 1
            if alone:
                await self._until(lambda: all(lane.idle for lane in self._lanes))
            now = self._clock.now()
            for lane, run in zip(self._lanes, step, strict=False):
                if run:
                    lane.queue.put(Run(last, run, now))
                    lane.wake.set()
            if alone:
                await self._until(lambda: all(lane.idle for lane in self._lanes))

    async def _empty(self, lane: Lane) -> None:
        """Deliver what comes into one lane, in order."""
        while True:
            due = lane.queue.due(self._clock.now(), self._draining)
            if due is None:
                lane.wake.clear()
                self._moved.set()
                await lane.wake.wait()
                continue
            if due > 0:
                await self._company(lane, due)
                continue
            batch = lane.queue.take()
            lane.busy = True
            await self._deliverer.deliver(batch.changes, self._settler(batch))
            lane.busy = False

    async def _company(self, lane: Lane, seconds: float) -> None:
        """Wait for a batch to fill, or to be old enough."""
        lane.wake.clear()
        waits = [asyncio.ensure_future(lane.wake.wait()), asyncio.ensure_future(self._clock.sleep(seconds))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _settler(self, batch: Batch) -> Callable[[int], None]:
        """Return what tells the frontier, share by share, how much of a batch is settled."""
        shares = list(batch.shares)

        def settle(count: int) -> None:
            while count:
                stretch, owed = shares[0]
                part = min(count, owed)
                self._frontier.settle(stretch, part)
                count -= part
                if part == owed:
                    shares.pop(0)
                else:
                    shares[0] = (stretch, owed - part)
            self._note_cursor()
            self._moved.set()

        return settle

    def _note_cursor(self) -> None:
        cursor = self._frontier.cursor
        if cursor == self._noted:
            return
        self._noted = cursor
        probes.reach("delivery.before_cursor")
        self._journal.save_cursor(self._subscription.name, cursor)
        self._observer.settled(self._subscription.name, cursor)
        probes.reach("delivery.after_cursor")

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that settling brings about."""
        while not condition():
            self._moved.clear()
            await self._moved.wait()


def _threadsafe_set(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    # The loop may have closed between the journal's look at its listeners and this call.
    try:
        loop.call_soon_threadsafe(event.set)
    except RuntimeError:
        return
