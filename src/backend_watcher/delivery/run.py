"""
The loop of one subscription: start, drain, stop.

In between: read the journal after the cursor, route, spread over lanes, batch, deliver, settle, move the cursor. A
replay reads a past range the same way, while the live stream waits: so of each key the newest change comes last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from backend_watcher import probes
from backend_watcher.contracts import Clock, Journal, Observer, TransactionalSink
from backend_watcher.delivery.batch import LaneQueue, Run
from backend_watcher.delivery.cursor import Frontier
from backend_watcher.delivery.deliver import Deliverer, SubscriptionStopped, Taken
from backend_watcher.delivery.gate import Draining, Gate
from backend_watcher.delivery.lanes import spread
from backend_watcher.delivery.parked import Keeper
from backend_watcher.delivery.route import was_made_here, was_read_for
from backend_watcher.delivery.settle import Settler
from backend_watcher.delivery.steer import Pause, Replay, dump, load_pause, load_replay, pause_note, replay_note
from backend_watcher.delivery.subscription import Subscription
from backend_watcher.errors import ConfigError, in_one_line
from backend_watcher.events.change import Change
from backend_watcher.events.chunk import Block
from backend_watcher.events.position import Position
from backend_watcher.threads import set_threadsafe

READ_BYTES = 1024 * 1024
"""How much is read from the journal at a time."""

REPLAY_NOTE_SECONDS = 1.0
"""How often a replay writes down how far it is."""


class Lane:
    """One queue and the task that empties it."""

    __slots__ = ("busy", "ended", "queue", "wake")

    def __init__(self, queue: LaneQueue) -> None:
        self.queue = queue
        self.wake = asyncio.Event()
        self.busy = False
        # Draining, it left undelivered what it could not deliver now.
        self.ended = False

    @property
    def idle(self) -> bool:
        """Say that nothing waits here and nothing is under way."""
        return self.ended or (not self.busy and not len(self.queue))


class SubscriptionLoop:
    """Runs one subscription from its cursor on, until drained, stopped, or stopped by an error."""

    def __init__(
        self,
        subscription: Subscription,
        journal: Journal,
        cursor: Position,
        clock: Clock,
        observer: Observer,
        *,
        wall: Callable[[], float] = time.time,
        taken: Taken | None = None,
    ) -> None:
        self.name = subscription.name
        self._subscription = subscription
        self._journal = journal
        self._clock = clock
        self._observer = observer
        self._wall = wall
        options = subscription.options
        self._gate = Gate(clock)
        self._keeper = Keeper(
            subscription.name,
            journal,
            self._gate,
            clock,
            observer,
            options.patience,
            parked_max=options.parked_max,
            batch=options.batch.changes,
            at_once=options.concurrency,
            wall=wall,
        )
        self._deliverer = Deliverer(subscription, self._keeper, self._gate, clock, observer, self._pause_itself, taken)
        self._live = self._frontier = Frontier(cursor)
        self._noted = cursor
        self._whole = options.whole_transactions
        self._lanes = [Lane(LaneQueue(options.batch, whole=self._whole)) for _ in range(options.concurrency)]
        self._news = asyncio.Event()
        self._moved = asyncio.Event()
        self._replay: Replay | None = None
        # What the reader waits for: until then it puts nothing into the lanes.
        self._waited_for: Callable[[], bool] | None = None
        if isinstance(subscription.sink, TransactionalSink):
            subscription.sink.belongs_to(subscription.name)

    @property
    def cursor(self) -> Position:
        """Everything up to here is settled."""
        return self._live.cursor

    @property
    def waits_on_purpose(self) -> bool:
        """Say that nothing is to be expected of it: paused, replaying, out of room, or draining."""
        return self._gate.paused or self._gate.draining or self._keeper.full or self._replay is not None

    # Its life

    async def run(self) -> None:
        """
        Deliver until drained. Raises SubscriptionStopped where an error needs a person.

        Cancelling stops at once; what was not settled is delivered again after the next start.
        """
        loop = asyncio.get_running_loop()
        listening = [self._journal.listen_news(lambda: set_threadsafe(loop, self._news))]
        if self._whole:
            # The end of a transaction may come by itself, without a change.
            listening.append(self._journal.listen(lambda: set_threadsafe(loop, self._news)))
        try:
            await self.take_up()
            await self._deliverer.open()
            async with asyncio.TaskGroup() as group:
                lanes = [group.create_task(self._empty(lane)) for lane in self._lanes]
                keeping = group.create_task(self._keeper.run(self._deliverer.offer_once))
                await self._fill()
                await self._until(self._all_idle)
                # Draining, it ends by itself, after what it has under way.
                await keeping
                for task in lanes:
                    task.cancel()
        except Draining:
            return
        except ExceptionGroup as failures:
            # Whatever else failed, a stop is what a person has to read.
            stopped = failures.subgroup(SubscriptionStopped)
            error = (stopped or failures).exceptions[0]
            if isinstance(error, SubscriptionStopped):
                raise error from error.__cause__
            raise self._stopped(error) from error
        finally:
            for unlisten in listening:
                unlisten()
            await self._subscription.sink.close()

    async def take_up(self) -> None:
        """Go on where the last process left: paused, replaying, with keys that are held."""
        pause = load_pause(await self._journal.get_note(pause_note(self.name)))
        self._replay = load_replay(await self._journal.get_note(replay_note(self.name)))
        await self._keeper.load()
        self._keeper.came_to(self.cursor)
        if pause is not None:
            self._gate.pause()
            self._observer.subscription_state(self.name, "paused", pause.reason)

    def drain(self) -> None:
        """Read no more; `run` returns when what was read is settled, or cannot be now."""
        self._gate.drain()
        self._keeper.wake()
        self._news.set()
        self._moved.set()
        for lane in self._lanes:
            lane.wake.set()

    def _stopped(self, error: Exception) -> SubscriptionStopped:
        """Say that the journal or a rule failed: there is nothing to offer again."""
        self._observer.failed(self.name, error, 1, None)
        self._observer.subscription_state(self.name, "stopped", str(error))
        return SubscriptionStopped(f"{self.name}: {error}")

    # What people ask of it; all in its own event loop

    async def pause(self, by: str, reason: str = "") -> None:
        """Deliver nothing until `resume`, also after a restart. What is under way ends first."""
        self._gate.pause()
        await self._journal.set_note(pause_note(self.name), dump(Pause(self._wall(), by, reason)))
        self._observer.subscription_state(self.name, "paused", reason)

    async def resume(self) -> None:
        """Go on."""
        await self._journal.set_note(pause_note(self.name), None)
        self._gate.resume()
        self._keeper.wake()
        self._observer.subscription_state(self.name, "running", "")

    async def replay(self, replay: Replay) -> Replay:
        """
        Deliver a past range again before the live stream goes on; return it as it will be done.

        Raises ConfigError where another is not done yet, or nothing of the range is in the journal.
        """
        if self._replay is not None:
            raise ConfigError([f"subscription {self.name!r} is replaying already, up to {self._replay.to}"])
        if replay.after >= min(replay.to, self.cursor):
            raise ConfigError([f"nothing to replay: {self.name!r} has not delivered anything after {replay.after}"])
        await self._journal.set_note(replay_note(self.name), dump(replay))
        self._replay = replay
        self._news.set()
        return replace(replay, to=min(replay.to, self.cursor))

    def redrive(self, number: int | None = None) -> int:
        """Try a parked key, or all, again; return how many. Raises KeyError."""
        return self._keeper.redrive(number)

    async def discard(self, number: int, *, everything: bool = False) -> int:
        """Forget what a held key failed on, or all of it; return how many changes. Raises KeyError."""
        return await self._keeper.discard(number, everything=everything)

    async def _pause_itself(self, error: BaseException) -> None:
        await self.pause("the watcher", in_one_line(error))

    # Reading

    async def _fill(self) -> None:
        """Read the journal into the lanes until told to drain."""
        try:
            while not self._gate.draining:
                await self._gate.passed()
                await self._keeper.room()
                # What was held beyond the cursor comes first: what is replayed would follow it, and not be followed.
                if self._replay is not None and not self._keeper.catching_up:
                    await self._deliver_again(self._replay)
                    continue
                self._news.clear()
                durable = self._journal.durable_lsn
                blocks = await self._journal.read(self._frontier.opened_to, READ_BYTES)
                if not blocks:
                    self._came_to(durable)
                for block in blocks:
                    await self._take(block, self._chosen(block))
                if not blocks and self._replay is not None:
                    await self._until(lambda: self._gate.draining or self._all_idle())
                if not blocks and (self._replay is None or self._keeper.catching_up):
                    await self._news.wait()
        except Draining:
            return

    def _chosen(self, block: Block) -> Sequence[Change]:
        """Return what of a block is wanted here."""
        # What was read from a table fills blocks of its own, and says whom it was read for.
        if was_made_here(block.changes[0]) and not was_read_for(block.changes[0], self.name):
            return ()
        return self._subscription.route.select(block.changes, block.tables)

    async def _deliver_again(self, replay: Replay) -> None:
        """Deliver what a replay asks for, then let the live stream go on."""
        await self._until(lambda: self._gate.draining or self._all_idle())
        if self._gate.draining:
            return  # the lanes still settle what is live
        # What was delivered since it was asked for belongs to it too: of each key the newest change comes last.
        due = replace(replay, to=min(replay.to, self._live.cursor))
        self._observer.subscription_state(self.name, "replaying", f"up to {due.to}")
        self._frontier = Frontier(replay.begin)
        noted = self._clock.now()
        while self._frontier.opened_to < due.to and not self._gate.draining:
            await self._gate.passed()
            blocks = await self._journal.read(self._frontier.opened_to, READ_BYTES)
            for block in blocks:
                await self._take(block, [change.as_replayed() for change in self._chosen(block) if due.matches(change)])
            if not blocks:
                break
            if self._clock.now() - noted >= REPLAY_NOTE_SECONDS:
                noted = self._clock.now()
                await self._note_replay(replay.went_to(self._frontier.cursor))
        await self._until(self._all_idle)
        done = not self._gate.draining
        await self._note_replay(None if done else replay.went_to(self._frontier.cursor))
        if done:
            self._replay = None
            self._frontier = self._live
            self._observer.subscription_state(self.name, "running", "")

    async def _note_replay(self, replay: Replay | None) -> None:
        await self._journal.set_note(replay_note(self.name), None if replay is None else dump(replay))

    async def _take(self, block: Block, chosen: Sequence[Change]) -> None:
        """Put a block's wanted changes into the lanes, at once or in stretches that keep within the limits."""
        options = self._subscription.options
        limit, limit_bytes = options.max_in_flight, options.max_in_flight_bytes
        begin = 0
        while not self._gate.draining:
            # Half of it has to be free first: stretches of one change each would be slow.
            await self._until(
                lambda: (
                    self._gate.draining
                    or (self._frontier.in_flight <= limit // 2 and self._frontier.in_flight_bytes <= limit_bytes // 2)
                )
            )
            if self._gate.draining:
                return
            end = begin + limit - self._frontier.in_flight
            part = chosen if not begin and end >= len(chosen) else chosen[begin:end]
            if end >= len(chosen):
                await self._admit(part, block.last, block.size_bytes * len(part) // len(block.changes))
                return
            await self._admit(part, part[-1].position, block.size_bytes * len(part) // len(block.changes))
            begin = end

    def _came_to(self, lsn: int) -> None:
        """Let lanes that keep transactions together know that all before `lsn` is here."""
        if self._whole:
            for lane in self._lanes:
                lane.queue.came_to(lsn)
                lane.wake.set()

    async def _admit(self, changes: Sequence[Change], last: Position, size_bytes: int) -> None:
        self._frontier.open(last, len(changes), size_bytes)
        if not changes:
            self._note_cursor()
            return
        for step in spread(changes, len(self._lanes)):
            alone = len(step) == 1 and len(self._lanes) > 1
            if alone:
                await self._until_all_is_done()
            now = self._clock.now()
            for lane, run in zip(self._lanes, step, strict=False):
                if run:
                    lane.queue.put(Run(last, run, now))
                    lane.wake.set()
            if alone:
                await self._until_all_is_done()

    async def _until_all_is_done(self) -> None:
        """Wait for all that was admitted. Raises Draining where a lane left some of it: nothing may pass that."""
        await self._until(self._all_idle)
        if any(lane.ended for lane in self._lanes):
            raise Draining

    def _all_idle(self) -> bool:
        return all(lane.idle for lane in self._lanes)

    # Delivering

    async def _empty(self, lane: Lane) -> None:
        """Deliver what comes into one lane, in order."""
        while True:
            due = lane.queue.due(self._clock.now(), self._gate.draining, pressed=self._pressed)
            if due is None and self._gate.draining and len(lane.queue):
                # The rest of the transaction comes after the next start, and all of it then.
                lane.ended = True
                self._moved.set()
                return
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
            settler = Settler(self._frontier, batch, self._settled)
            try:
                await self._deliverer.deliver(batch.changes, settler)
            except Draining:
                lane.ended = True
                self._moved.set()
                return
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

    def _settled(self) -> None:
        self._note_cursor()
        self._moved.set()

    def _note_cursor(self) -> None:
        cursor = self._live.cursor
        if cursor == self._noted:
            return
        self._noted = cursor
        probes.reach("delivery.before_cursor")
        self._journal.save_cursor(self.name, cursor)
        self._keeper.came_to(cursor)
        self._observer.settled(self.name, cursor)
        probes.reach("delivery.after_cursor")

    @property
    def _pressed(self) -> bool:
        """Say that the reader puts nothing into the lanes until they bring something about."""
        return self._waited_for is not None and not self._gate.draining and not self._waited_for()

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that settling brings about."""
        self._waited_for = condition
        while not condition():
            if self._whole:
                for lane in self._lanes:
                    lane.wake.set()
            self._moved.clear()
            await self._moved.wait()
        self._waited_for = None
