"""The loop of a subscription, on a real journal, with sinks that work, wait, fail and stop."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from backend_watcher import probes
from backend_watcher.contracts import Journal, Sink
from backend_watcher.delivery.batch import BatchLimits
from backend_watcher.delivery.deliver import SubscriptionStopped
from backend_watcher.delivery.retry import Patience
from backend_watcher.delivery.route import Route, Rule
from backend_watcher.delivery.run import SubscriptionLoop
from backend_watcher.delivery.subscription import Options, Subscription
from backend_watcher.errors import ConfigError
from backend_watcher.events.change import Change
from backend_watcher.events.position import START, Position
from backend_watcher.journal import MemoryJournal
from backend_watcher.sinks.memory import Hold, Memory
from backend_watcher.testing import builders
from backend_watcher.testing.chunks import read_all
from backend_watcher.testing.fakes import HeldTold, OwnedClock, RecordingObserver, Settled

from .chaos import ChaosSink, CheckedJournal, random_ops
from .feeding import Feed, Op, ticks

PRODUCTS = "public.products"
SCHEDULES = 120


class Life:
    """One run of a loop, from the journal's cursor on."""

    def __init__(self, loop: SubscriptionLoop, observer: RecordingObserver) -> None:
        self.loop = loop
        self.observer = observer
        self.task = asyncio.create_task(loop.run())

    async def drain(self) -> None:
        self.loop.drain()
        async with asyncio.timeout(20):
            await self.task

    async def until(self, position: Position) -> None:
        """Wait for the cursor to be at `position`; an end of the loop before that is raised."""
        there = asyncio.create_task(self.observer.wait_for(lambda: self.loop.cursor >= position))
        await asyncio.wait([there, self.task], return_when=asyncio.FIRST_COMPLETED)
        if self.task.done():
            there.cancel()
            self.task.result()
        await there


async def begin(
    journal: Journal, sink: Sink, *, name: str = "cache", rule: Rule | None = None, **options: object
) -> Life:
    transforms = options.pop("transforms", ())
    clock = options.pop("clock", OwnedClock(free_running=True))
    subscription = Subscription(
        name,
        Route({PRODUCTS: rule or Rule(PRODUCTS)}),
        sink,
        transforms,  # type: ignore[arg-type]
        replace(Options(), **options),  # type: ignore[arg-type]
    )
    observer = RecordingObserver()
    cursor = (await journal.cursors()).get(name, START)
    journal.save_cursor(name, cursor)
    return Life(SubscriptionLoop(subscription, journal, cursor, clock, observer), observer)  # type: ignore[arg-type]


def keys(sink: Memory) -> list[int]:
    return [change.row["id"] for change in sink.changes]


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_a_random_schedule_of_faults_loses_nothing(dice: random.Random, concurrency: int) -> None:
    for _ in range(SCHEDULES):
        journal = CheckedJournal()
        await journal.open()
        await schedule(dice, journal, concurrency)
        await journal.close()


async def schedule(dice: random.Random, journal: CheckedJournal, concurrency: int) -> None:
    """Feed, fail, cancel and drain at random; then deliver the rest and look at all that happened."""
    sink, feed = ChaosSink(dice, journal), Feed(journal)
    journal.sink = sink
    rule = dice.choice([Rule(PRODUCTS), Rule(PRODUCTS, predicate=lambda change: change.ordinal % 3 != 1)])
    route = Route({PRODUCTS: rule})
    options = {
        "concurrency": concurrency,
        "batch": BatchLimits(dice.randint(1, 6), dice.choice([100, 100_000])),
        "max_in_flight": dice.choice([1, 3, 100]),
        "timeout_seconds": 0.005,
    }
    for life_number in range(dice.randint(1, 3)):
        life = await begin(journal, sink, rule=rule, **options)
        for _ in range(dice.randint(1, 4)):
            await feed.commit(*random_ops(dice))
            journal.wanted = [c.position for c in await read_all(journal) if route.agrees(c)]
            await ticks(dice.randint(0, 30))
        if dice.random() < 0.5:
            life.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await life.task
        else:
            sink.calm = life_number == 2
            await life.drain()
    sink.calm = True
    last = await begin(journal, sink, rule=rule, **options)
    await last.until(journal.last_position)
    async with asyncio.timeout(20):
        while journal.kept:
            last.loop.redrive()
            await ticks(5)
    await last.drain()
    sink.check_order([change for change in await read_all(journal) if route.agrees(change)])
    assert await journal.held_keys("cache") == []


async def test_it_delivers_moves_the_cursor_and_ends_when_drained(journal: MemoryJournal, feed: Feed) -> None:
    sink = Memory()
    life = await begin(journal, sink)
    await feed.insert(1, 2, 3)
    await life.until(journal.last_position)
    assert sink.is_open
    await life.drain()
    assert not sink.is_open
    assert sorted(keys(sink)) == [1, 2, 3]
    assert await journal.cursors() == {"cache": journal.last_position}


async def test_one_lane_is_in_commit_order(journal: MemoryJournal, feed: Feed) -> None:
    sink = Memory()
    life = await begin(journal, sink, concurrency=1, batch=BatchLimits(3))
    await feed.commit(*(Op("insert", key) for key in range(9)), Op("truncate"), Op("insert", 4), Op("update", 5, was=4))
    await feed.commit(Op("delete", 5))
    await life.until(journal.last_position)
    await life.drain()
    assert list(sink.changes) == await read_all(journal)


async def test_after_a_drain_nothing_comes_twice(journal: MemoryJournal, feed: Feed) -> None:
    sink = Memory()
    sink.script(held := Hold())
    life = await begin(journal, sink, concurrency=1, batch=BatchLimits(2))
    await feed.insert(*range(10))
    await held.reached.wait()
    life.loop.drain()
    await feed.insert(*range(10, 20))
    await ticks(20)
    assert not life.task.done()
    held.release.set()
    await life.task
    # What was read is delivered; what came later is not, and comes in the next life.
    assert keys(sink) == list(range(10))
    again = await begin(journal, sink)
    await again.until(journal.last_position)
    await again.drain()
    assert sorted(keys(sink)) == list(range(20))


async def test_what_is_said_to_be_gone_reaches_only_whom_it_is_for(journal: MemoryJournal, feed: Feed) -> None:
    await feed.insert(1, 2)
    await feed.say_gone(b'{"repair": "3", "subscriptions": ["cache"]}', 7)
    await feed.insert(3)
    asked, other = Memory(), Memory()
    asks_the_row = Rule(PRODUCTS, predicate=lambda change: change.row["name"] == "x")
    for name, sink in (("cache", asked), ("other", other)):
        life = await begin(journal, sink, name=name, rule=asks_the_row)
        await life.until(journal.last_position)
        await life.drain()
    # Keys have no order among each other.
    assert {change.key[0]: str(change.operation) for change in asked.changes} == {
        1: "insert",
        2: "insert",
        7: "delete",
        3: "insert",
    }
    assert sorted(keys(other)) == [1, 2, 3]


async def test_drained_before_it_began_it_reads_nothing(journal: MemoryJournal, feed: Feed) -> None:
    sink = Memory()
    await feed.insert(1)
    life = await begin(journal, sink)
    await life.drain()
    assert (keys(sink), life.loop.cursor) == ([], START)


async def test_cancelled_it_closes_the_sink_and_leaves_the_rest_to_the_next_life(
    journal: MemoryJournal, feed: Feed
) -> None:
    sink = Memory()
    sink.script(None, held := Hold())
    life = await begin(journal, sink, concurrency=1, batch=BatchLimits(2))
    await feed.insert(1, 2)
    await feed.insert(3, 4)
    await held.reached.wait()
    life.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await life.task
    assert not sink.is_open
    assert keys(sink) == [1, 2]
    again = await begin(journal, sink)
    await again.until(journal.last_position)
    await again.drain()
    assert keys(sink)[:2] == [1, 2]
    assert sorted(keys(sink)[2:]) == [3, 4]


@pytest.mark.parametrize(("limit", "committed"), [(1, 3), (4, 3), (7, 20), (10, 6)])
async def test_no_more_is_under_way_than_max_in_flight(
    journal: MemoryJournal, feed: Feed, limit: int, committed: int
) -> None:
    highest = 0

    def look() -> None:
        nonlocal highest
        highest = max(highest, life.loop._frontier.in_flight)

    probes.arm("delivery.before_write", look)
    sink = Memory()
    sink.script(held := Hold())
    life = await begin(journal, sink, max_in_flight=limit, batch=BatchLimits(2), concurrency=1)
    for number in range(5):
        await feed.insert(*range(number * committed, (number + 1) * committed))
    await held.reached.wait()
    await ticks(20)
    look()
    held.release.set()
    await life.until(journal.last_position)
    await life.drain()
    assert keys(sink) == list(range(5 * committed))
    assert highest <= limit
    assert highest > limit // 2


async def test_a_lane_that_waits_does_not_stop_the_others(journal: MemoryJournal, feed: Feed) -> None:
    stuck, go = asyncio.Event(), asyncio.Event()

    class OneSlowKey(Memory):
        async def write(self, batch):  # type: ignore[no-untyped-def]
            if any(change.row["id"] == 1 for change in batch):
                stuck.set()
                await go.wait()
            return await super().write(batch)

    sink = OneSlowKey()
    life = await begin(journal, sink, batch=BatchLimits(1))
    await feed.insert(1, 1)
    await stuck.wait()
    before = life.loop.cursor
    others = [key for key in range(2, 60) if builders.change(new={"id": key}).lane(8) != lane_of(1)]
    await feed.insert(*others)
    await sink.wait_for(len(others))
    assert sorted(keys(sink)) == others
    assert life.loop.cursor == before
    go.set()
    await life.until(journal.last_position)
    await life.drain()
    assert keys(sink).count(1) == 2


def lane_of(key: int) -> int:
    return builders.change(new={"id": key}).lane(8)


async def test_an_error_for_a_person_stops_this_subscription_and_no_other(journal: MemoryJournal, feed: Feed) -> None:
    class Wrong(Memory):
        async def write(self, batch):  # type: ignore[no-untyped-def]
            raise ConfigError(["no such stream"])

    wrong, right = Wrong(), Memory()
    stopping = await begin(journal, wrong, name="wrong")
    going = await begin(journal, right, name="right")
    await feed.insert(1, 2, 3)
    with pytest.raises(SubscriptionStopped, match="wrong: no such stream") as caught:
        await stopping.task
    assert isinstance(caught.value.__cause__, ConfigError)
    assert not wrong.is_open
    await feed.insert(4)
    await going.until(journal.last_position)
    await going.drain()
    assert sorted(keys(right)) == [1, 2, 3, 4]
    assert (await journal.cursors())["wrong"] == START


def raising(change: Change) -> Change:
    if change.row["id"] == 1:
        raise KeyError("colour")
    return change


@pytest.mark.parametrize("options", [{"transforms": (raising,)}, {"rule": Rule(PRODUCTS, predicate=raising)}])  # type: ignore[arg-type]
async def test_a_function_that_raises_on_the_way_holds_the_key_and_no_other(
    journal: MemoryJournal, feed: Feed, options: dict[str, object]
) -> None:
    sink = Memory()
    life = await begin(journal, sink, patience=Patience(attempts=2), **options)  # type: ignore[arg-type]
    await feed.insert(1)
    await feed.insert(2)
    await life.until(journal.last_position)
    await life.observer.wait_for(lambda: any(isinstance(told, HeldTold) and told.key.parked for told in told_by(life)))
    await life.drain()
    (key,) = await journal.held_keys("cache")
    assert (key.key, key.attempts, "KeyError: 'colour'" in key.error) == ('{"id":1}', 2, True)
    assert keys(sink) == [2]


def told_by(life: Life) -> list[object]:
    return list(life.observer.told)


async def test_a_broken_journal_stops_loudly(journal: MemoryJournal, feed: Feed) -> None:
    sink = Memory()
    sink.script(held := Hold())
    life = await begin(journal, sink)
    await feed.insert(1)
    await held.reached.wait()
    journal.fail()
    held.release.set()
    with pytest.raises(SubscriptionStopped, match="the disk is full"):
        await life.task
    assert life.observer.failures[-1].retry_seconds is None
    with pytest.raises(Exception, match="the disk is full"):
        await journal.close()


async def test_what_was_read_is_let_go_by_the_journal() -> None:
    journal = MemoryJournal(retain_bytes=0)
    await journal.open()
    feed, sink = Feed(journal), Memory()
    life = await begin(journal, sink, batch=BatchLimits(1))
    for key in range(20):
        await feed.insert(key)
        await life.until(journal.last_position)
    assert (await journal.state()).blocks <= 2
    await life.drain()
    assert keys(sink) == list(range(20))
    await journal.close()


async def test_it_sleeps_until_the_journal_wakes_it_from_any_thread(feed: Feed) -> None:
    journal = CheckedJournal()
    await journal.open()
    feed = Feed(journal)
    sink = Memory()
    life = await begin(journal, sink)
    await ticks(50)
    idle = journal.reads
    await ticks(50)
    assert journal.reads == idle == 1
    thread = threading.Thread(target=lambda: asyncio.run(feed.insert(1)))
    thread.start()
    await sink.wait_for(1)
    await asyncio.to_thread(thread.join)
    await life.drain()
    # Woken by the change and, once, by its own cursor.
    assert journal.reads <= idle + 3
    await journal.close()


async def test_what_nobody_wants_moves_the_cursor_too(journal: MemoryJournal, feed: Feed) -> None:
    sink = Memory()
    life = await begin(journal, sink, rule=Rule(PRODUCTS, predicate=lambda _: False))
    await feed.insert(1, 2)
    await life.until(journal.last_position)
    dropped = await begin(journal, sink, name="dropping", transforms=(lambda _: None,))
    await dropped.until(journal.last_position)
    await life.drain()
    await dropped.drain()
    assert sink.count == 0


async def test_the_cursor_is_told_only_when_it_moved(journal: MemoryJournal, feed: Feed) -> None:
    life = await begin(journal, Memory(), batch=BatchLimits(1), concurrency=1)
    await feed.insert(1, 2, 3)
    await feed.insert(4, 5)
    await life.until(journal.last_position)
    await life.drain()
    told = [told.position for told in life.observer.told if isinstance(told, Settled)]
    assert told == sorted(set(told))
    assert told[-1] == journal.last_position


async def test_a_transform_does_not_break_the_order_of_a_key(journal: MemoryJournal) -> None:
    table = builders.table(columns={"id": "text", "name": "text"})
    feed = Feed(journal, table)
    log: list[str] = []

    class Slow(Memory):
        async def write(self, batch):  # type: ignore[no-untyped-def]
            # Every other one takes longer: in two lanes they would overtake each other.
            await ticks(1 if int(batch[0].row["name"]) % 2 else 40)
            log.extend(change.row["name"] for change in batch)
            return await super().write(batch)

    def mask_odd(change: Change) -> Change:
        assert change.new is not None
        number = int(change.new["name"])
        return change.replace(new=change.new.to_dict() | {"id": "masked"}) if number % 2 else change

    life = await begin(journal, Slow(), transforms=(mask_odd,), batch=BatchLimits(1))
    await feed.commit(*(Op("update", 42, name=str(number)) for number in range(12)))
    await life.until(journal.last_position)
    await life.drain()
    assert log == [str(number) for number in range(12)]


@pytest.mark.parametrize("end", ["age", "full", "drain"])
async def test_a_batch_waits_for_company_but_not_for_ever(journal: MemoryJournal, feed: Feed, end: str) -> None:
    sink, clock = Memory(), OwnedClock()
    life = await begin(journal, sink, concurrency=1, batch=BatchLimits(4, seconds=2.0), clock=clock)
    await feed.insert(1)
    await clock.wait_for_sleeper()
    clock.advance(1.5)
    await feed.insert(2)
    await ticks(20)
    assert sink.count == 0
    if end == "age":
        clock.advance(0.5)
    if end == "full":
        await feed.insert(3, 4)
    if end != "drain":
        await life.until(journal.last_position)
    await life.drain()
    assert (sink.batches, keys(sink)) == (1, [1, 2, 3, 4] if end == "full" else [1, 2])


async def test_its_probes_are_reached_around_each_move_of_the_cursor(journal: MemoryJournal, feed: Feed) -> None:
    seen: list[tuple[str, Position]] = []

    def note(name: str) -> Callable[[], None]:
        return lambda: seen.append((name, journal._held().cursors()["cache"]))

    for name in ("delivery.before_cursor", "delivery.after_cursor"):
        probes.arm(name, note(name))
    life = await begin(journal, Memory())
    await feed.insert(1)
    await life.until(journal.last_position)
    await life.drain()
    assert seen == [("delivery.before_cursor", START), ("delivery.after_cursor", journal.last_position)]
