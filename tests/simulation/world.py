"""
One seed, one life of a subscription: workload, faults, people, crashes, and in the end everything is mended.

The real loop runs on the journal in memory, in an event loop whose time jumps. What must hold always is checked at
every write and every note (`sink.py`, `journal.py`), what must hold in the end at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import dataclass, field

from backend_watcher.delivery.batch import BatchLimits
from backend_watcher.delivery.deliver import SubscriptionStopped
from backend_watcher.delivery.held import Name
from backend_watcher.delivery.retry import Patience
from backend_watcher.delivery.route import Route, Rule
from backend_watcher.delivery.run import SubscriptionLoop
from backend_watcher.delivery.steer import Replay
from backend_watcher.delivery.subscription import Options, Subscription
from backend_watcher.errors import ConfigError, HandlerError, SinkRejected, Skip
from backend_watcher.events.change import DELETE, TRUNCATE, Change
from backend_watcher.events.position import START, Position
from backend_watcher.testing.chunks import read_all
from backend_watcher.testing.fakes import RecordingObserver, SubscriptionState
from backend_watcher.testing.virtual import VirtualClock, let_pass, run
from delivery.feeding import Feed, Op

from .journal import NAME, Journal
from .sink import Sink, Violation

PRODUCTS = "public.products"
STEPS_MAX = 20
MENDED_SECONDS_MAX = 7200.0

SOMETIMES = [
    "held",
    "joined",
    "parked",
    "released",
    "merged",
    "halved",
    "skip",
    "fail_after_write",
    "timeout",
    "truncate_joined",
    "crash",
    "crash_with_held",
    "redriven",
    "discarded",
    "paused",
    "resumed",
    "paused_itself",
    "replayed",
    "full",
    "outage",
    "stopped",
    "drained",
    "dropped",
    "coalesced",
    "reduced",
]
"""What a run over many seeds must have come to at least once; otherwise it explores less than it says."""


@dataclass
class World:
    """Everything of one seed."""

    seed: int
    seen: Counter[str] = field(default_factory=Counter)
    loop_class: type[SubscriptionLoop] = SubscriptionLoop

    def __post_init__(self) -> None:
        dice = self.dice = random.Random(self.seed)
        self.keys = dice.choice([2, 4, 16])
        self.one_by_one = dice.choice([1, 4])
        parked_max = dice.choice([3, 20, 1000])
        self.options = Options(
            concurrency=self.one_by_one,
            batch=BatchLimits(dice.choice([1, 3, 100]), seconds=dice.choice([0.0, 0.0, 1.0])),
            timeout_seconds=5.0,
            max_in_flight=dice.choice([1, 5, 1000]),
            coalesce=dice.random() < 0.2,
            patience=Patience(dice.choice([1, 3, 15]), 20.0),
            parked_max=parked_max,
        )
        self.drops = dice.random() < 0.2
        self.sink = Sink(dice, self.seen)
        self.journal = Journal(self.sink, self.seen, parked_max, self.options.coalesce)
        self.feed = Feed(self.journal)
        self.observer = RecordingObserver()
        self.partial_replay = False
        self.life: SubscriptionLoop | None = None
        self.task: asyncio.Task[None] | None = None
        self.others: set[asyncio.Task[object]] = set()

    # Its lives

    def wants(self, change: Change) -> bool:
        return not (self.drops and change.position.ordinal % 3 == 1)

    async def begin(self) -> None:
        rule = Rule(PRODUCTS, predicate=self.wants if self.drops else None)
        subscription = Subscription(NAME, Route({PRODUCTS: rule}), self.sink, (), self.options)
        cursor = (await self.journal.cursors()).get(NAME, START)
        clock = VirtualClock()
        self.life = self.loop_class(
            subscription, self.journal, cursor, clock, self.observer, wall=lambda: 1e6 + clock.now()
        )
        self.task = asyncio.create_task(self.life.run())

    async def end(self, *, drain: bool) -> None:
        """End this life, in good order or not."""
        assert self.task is not None
        if drain:
            assert self.life is not None
            self.journal.release()
            self.life.drain()
            self.seen["drained"] += 1
            await asyncio.wait([self.task], timeout=MENDED_SECONDS_MAX)
            if not self.task.done():
                raise Violation("it does not drain")
        self.task.cancel()
        for other in self.others:
            other.cancel()
        await asyncio.gather(*self.others, return_exceptions=True)
        self.journal.discarding = 0
        with contextlib.suppress(asyncio.CancelledError):
            await self.look_at_end()

    async def look_at_end(self) -> None:
        """A life ends when it is told to, or by an error that only a person can mend."""
        assert self.task is not None
        try:
            await self.task
        except SubscriptionStopped as stopped:
            if not isinstance(stopped.__cause__, ConfigError):
                raise Violation(f"stopped by {stopped.__cause__!r}") from stopped
            self.seen["stopped"] += 1

    async def crash(self) -> None:
        await self.end(drain=False)
        await self.journal.die()
        await self.begin()

    # What may happen

    async def commit(self) -> None:
        dice = self.dice
        ops = []
        kinds = ["insert", "update", "update", "delete", "rekey"] + ["truncate"] * (dice.random() < 0.2)
        for _ in range(dice.choice([1, 1, 3, 12])):
            kind = dice.choice(kinds)
            # One key is hot.
            key, was = (dice.choice([1, dice.randint(1, self.keys)]) for _ in range(2))
            if kind == "rekey" and was != key:
                ops.append(Op("update", key, was=was))
            else:
                ops.append(Op(kind.replace("rekey", "delete"), key))
        await self.keep(ops)

    async def keep(self, ops: list[Op]) -> None:
        """Commit a transaction, and remember what it means."""
        await self.feed.commit(*ops)
        for place, op in enumerate(ops):
            position = Position(self.feed.lsn, place)
            numbers = {op.key, op.was} - {None} if op.kind != "truncate" else ()
            self.journal.names[position] = [(PRODUCTS, str(number).encode()) for number in numbers]
            self.sink.tied.update([position] if len(numbers) == 2 else [])
            if not (self.drops and place % 3 == 1):
                self.journal.wanted.append(position)
            if op.kind == "truncate":
                self.journal.truncates.add(position)
            elif self.dice.random() < 0.05:
                self.sink.poison[position] = self.dice.choice(
                    [SinkRejected("no"), HandlerError("bug"), Skip("not mine")]
                )

    async def pause(self) -> None:
        assert self.life is not None
        self.seen["paused"] += 1
        self.do(self.life.pause("somebody"))

    async def resume(self) -> None:
        assert self.life is not None
        self.seen["resumed"] += 1
        self.do(self.life.resume())

    async def replay(self) -> None:
        assert self.life is not None
        cursor = self.life.cursor
        after = self.dice.choice([START, *[p for p in self.journal.wanted if p < cursor][-5:]])
        to = self.dice.choice([Position(1 << 40, 0), Position(1 << 40, 0), cursor])
        key = str(self.dice.randint(1, self.keys)) if self.dice.random() < 0.3 else None

        # Replayed without the others, a row that was another one before ends as that part leaves it.
        self.partial_replay = self.partial_replay or key is not None or to == cursor

        async def replay() -> None:
            with contextlib.suppress(ConfigError):
                assert self.life is not None
                await self.life.replay(Replay(after, to, key=key))
                self.seen["replayed"] += 1

        self.do(replay())

    async def redrive(self) -> None:
        assert self.life is not None
        number = self.journal.choose(self.dice) if self.dice.random() < 0.5 else None
        with contextlib.suppress(KeyError):
            self.seen["redriven"] += self.life.redrive(number) > 0

    async def discard(self) -> None:
        number = self.journal.choose(self.dice)
        everything = self.dice.random() < 0.3
        if number is None:
            return

        async def discard() -> None:
            assert self.life is not None
            self.journal.discarding += 1
            try:
                self.seen["discarded"] += await self.life.discard(number, everything=everything) > 0
            except KeyError:
                pass
            finally:
                self.journal.discarding -= 1

        self.do(discard())

    async def outage(self) -> None:
        self.sink.outage = not self.sink.outage
        if self.sink.outage:
            await self.keep([Op("update", key) for key in range(1, self.keys + 1)])

    async def heal(self) -> None:
        self.sink.poison.clear()

    async def slow_disk(self) -> None:
        self.journal.hold()

    async def quick_disk(self) -> None:
        self.journal.release()

    async def stop(self) -> None:
        await self.end(drain=True)
        await self.begin()

    def do(self, what: object) -> None:
        """A person does it; it may take as long as it wants."""
        task = asyncio.ensure_future(what)  # type: ignore[call-overload]
        self.others.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[object]) -> None:
        self.others.discard(task)
        if not task.cancelled():
            task.exception()

    # The whole of it

    async def live(self) -> None:
        await self.journal.open()
        await self.begin()
        kinds = [self.commit] * 12 + [self.crash] * 2 + [self.stop, self.pause, self.resume, self.resume, self.replay]
        kinds += [self.redrive, self.redrive, self.discard, self.outage, self.heal, self.slow_disk, self.quick_disk]
        for _ in range(self.dice.randint(3, STEPS_MAX)):
            await self.dice.choice(kinds)()
            await self.pass_time()
            assert self.life is not None
            self.seen["outage"] += self.life._keeper.health.outage
        await self.mend()
        await self.look()

    async def pass_time(self) -> None:
        wish = self.dice.random()
        if wish < 0.5:
            for _ in range(self.dice.randint(0, 30)):
                await asyncio.sleep(0)
        else:
            await let_pass(self.dice.choice([0.01, 0.5, 5.0, 100.0]))
        assert self.task is not None
        if self.task.done():
            await self.look_at_end()
            await self.begin()

    async def mend(self) -> None:
        """Make everything work, and wait until nothing is owed."""
        self.sink.calm()
        self.journal.release()
        await self.end(drain=True)
        await self.begin()
        begun = asyncio.get_running_loop().time()
        while True:
            assert self.life is not None
            assert self.task is not None
            if self.task.done():
                await self.look_at_end()
                await self.begin()
            await self.life.resume()
            self.life.redrive()
            if self.life.cursor >= self.journal.last_position and not self.journal.kept and not self.life._replay:
                break
            if asyncio.get_running_loop().time() - begun > MENDED_SECONDS_MAX:
                raise Violation(f"owes {self.journal.kept} for ever, and is at {self.life.cursor}")
            await let_pass(1.0)
        await self.end(drain=True)

    async def look(self) -> None:
        """Nothing is lost, nothing is made up, and a plain copy is the source's."""
        journal, sink = self.journal, self.sink
        self.seen["full"] += any(
            told.state == "full" for told in self.observer.told if isinstance(told, SubscriptionState)
        )
        journal.look(journal.last_position)
        changes = await read_all(journal)
        self.seen["dropped"] += self.drops
        self.seen["coalesced"] += self.options.coalesce
        made_up = sink.durable - {change.position for change in changes if self.wants(change)}
        if made_up:
            raise Violation(f"{min(made_up)} was delivered, and never wanted")
        if await journal.held_keys(NAME):
            raise Violation("a key without changes is held")
        if not (self.partial_replay or sink.skipped or journal.discarded):
            self.compare(changes)
        if sink.repeats and not (journal.deaths or sink.failures or self.seen["paused"]):
            raise Violation(f"{sink.repeats} changes came twice without a reason")

    def compare(self, changes: list[Change]) -> None:
        rows: dict[Name, Position] = {}
        for change in filter(self.wants, changes):
            if change.code == TRUNCATE:
                rows.clear()
                continue
            names = change.identities()
            for name in names:
                rows.pop(name, None)
            if change.code != DELETE:
                rows[names[-1]] = change.position
        if rows != self.sink.rows:
            names = rows.keys() | self.sink.rows.keys()
            name = min(name for name in names if rows.get(name) != self.sink.rows.get(name))
            raise Violation(f"differs at {name}: {self.sink.rows.get(name)} where {rows.get(name)} is right")
        self.seen["compared"] += 1


def simulate(seed: int, loop_class: type[SubscriptionLoop] = SubscriptionLoop) -> Counter[str]:
    """Live one life; return what it came to. Raises Violation with the seed."""
    state = random.getstate()
    random.seed(seed)
    world = World(seed, loop_class=loop_class)
    try:
        run(world.live())
    except Exception as error:
        raise Violation(f"SEED={seed}: {type(error).__name__}: {error}") from error
    finally:
        random.setstate(state)
    return world.seen
