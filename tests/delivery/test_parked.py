"""The keeper of failing keys, on a journal in memory: what is held, tried, parked, and given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from backend_watcher.contracts import HeldKey
from backend_watcher.delivery.gate import Draining, Gate
from backend_watcher.delivery.health import OUTAGE_KEYS
from backend_watcher.delivery.parked import (
    KEY_CHARACTERS_MAX,
    Attempt,
    Keeper,
    key_text,
    remedy_of,
)
from backend_watcher.delivery.retry import Patience
from backend_watcher.errors import ConfigError, HandlerError, Retry, SinkGone, SinkRejected, SinkUnavailable
from backend_watcher.events.change import Change
from backend_watcher.events.position import Position
from backend_watcher.journal import MemoryJournal
from backend_watcher.testing import builders
from backend_watcher.testing.builders import change
from backend_watcher.testing.fakes import HeldTold, OwnedClock, RecordingObserver, Released, SubscriptionState

from .feeding import ticks

BUG = HandlerError("bug")


class Sink:
    """What is offered, and what comes of it: an error for each key that is `bad`, and for some ordinals."""

    def __init__(self) -> None:
        self.bad: dict[int, BaseException] = {}
        self.bad_at: dict[int, BaseException] = {}
        self.offers: list[list[int]] = []
        self.delivered: list[int] = []
        self.stuck: asyncio.Event | None = None

    async def __call__(self, changes: Sequence[Change]) -> Attempt:
        self.offers.append([one.ordinal for one in changes])
        if self.stuck is not None:
            await self.stuck.wait()
        for done, one in enumerate(changes):
            error = self.bad.get(one.key[0]) or self.bad_at.get(one.ordinal)
            if error is not None:
                return Attempt(done, error)
            self.delivered.append(one.ordinal)
        return Attempt(len(changes), None)


class Bench:
    """One keeper that runs, with a clock that the test moves."""

    def __init__(self, journal: MemoryJournal, *, parked_max: int = 1000, batch: int = 100, attempts: int = 3) -> None:
        self.journal = journal
        self.clock = OwnedClock()
        self.wall = 1000.0
        self.gate = Gate(self.clock)
        self.observer = RecordingObserver()
        self.sink = Sink()
        self.keeper = Keeper(
            "cache",
            journal,
            self.gate,
            self.clock,
            self.observer,
            Patience(attempts, 60.0),
            parked_max=parked_max,
            batch=batch,
            at_once=2,
            wall=lambda: self.wall + self.clock.now(),
            draw=lambda: 1.0,
        )
        self.task: asyncio.Task[None] | None = None
        self.ordinal = 0

    async def start(self) -> None:
        await self.keeper.load()
        self.task = asyncio.create_task(self.keeper.run(self.sink))
        await ticks(20)

    async def stop(self) -> None:
        self.gate.drain()
        self.keeper.wake()
        if self.task is not None:
            await self.task
            self.task = None

    def row(self, key: int) -> Change:
        self.ordinal += 1
        return change(new={"id": key}, ordinal=self.ordinal)

    def fail(self, key: int, error: BaseException = BUG) -> None:
        """A change of the key comes and fails."""
        self.sink.bad[key] = error
        self.keeper.hold(self.row(key), error)

    async def wait(self, seconds: float) -> None:
        """Let time pass in small steps, so that everybody wakes when it is due."""
        for _ in range(int(seconds * 10) + 1):
            self.clock.advance(0.1)
            await ticks(20)

    async def keys(self) -> Sequence[HeldKey]:
        return await self.journal.held_keys("cache")

    async def kept(self) -> list[int]:
        return [one.change.ordinal for one in await self.journal.held_changes("cache")]


@pytest.fixture
async def bench(journal: MemoryJournal) -> AsyncIterator[Bench]:
    bench = Bench(journal)
    await bench.start()
    yield bench
    await bench.stop()


async def test_a_held_change_is_tried_again_by_itself_and_given_back(bench: Bench) -> None:
    bench.fail(1)
    (key,) = await bench.keys()
    assert (key.key, key.attempts, key.due_at, key.changes) == ('{"id":1}', 1, 1000.1, 1)
    bench.sink.bad.clear()
    assert bench.sink.offers == []
    await bench.wait(0.2)
    assert (bench.sink.delivered, await bench.keys(), await bench.kept()) == ([1], [], [])
    assert bench.observer.told[-1] == Released("cache", 0)
    assert not bench.keeper.held


async def test_with_its_attempts_spent_it_is_parked_and_tried_no_more(bench: Bench) -> None:
    bench.fail(1)
    await bench.wait(5.0)
    (key,) = await bench.keys()
    assert (key.parked, key.attempts, key.error, key.remedy) == (True, 3, "HandlerError: bug", BUG.remedy)
    assert bench.sink.offers == [[1], [1]]
    told = [told.key for told in bench.observer.told if isinstance(told, HeldTold)]
    assert [(key.attempts, key.parked) for key in told] == [(1, False), (2, False), (3, True)]
    await bench.wait(100.0)
    assert len(bench.sink.offers) == 2


@pytest.mark.parametrize(("error", "parked"), [(SinkRejected("no"), True), (Retry(30.0), False)])
async def test_the_first_failure_decides_whether_it_is_tried_again(
    bench: Bench, error: Exception, parked: bool
) -> None:
    bench.fail(1, error)
    (key,) = await bench.keys()
    assert (key.parked, key.due_at) == (parked, None if parked else 1030.0)


async def test_what_waits_behind_follows_in_order_the_failing_one_alone_first(bench: Bench) -> None:
    bench.fail(1)
    assert [bench.keeper.join(bench.row(key)) is None for key in (1, 2, 1)] == [True, False, True]
    bench.sink.bad.clear()
    await bench.wait(0.2)
    assert bench.sink.offers == [[1], [2, 4]]
    assert await bench.keys() == []


async def test_a_later_change_that_fails_has_attempts_of_its_own(bench: Bench) -> None:
    bench.fail(1)
    bench.keeper.join(bench.row(1))
    bench.sink.bad = {}
    bench.sink.bad_at = {2: BUG}
    await bench.wait(0.05)
    (key,) = await bench.keys()
    assert (key.attempts, key.parked) == (1, False)
    assert await bench.kept() == [2]
    await bench.wait(5.0)
    (key,) = await bench.keys()
    assert (key.attempts, key.parked) == (3, True)


async def test_a_sink_that_does_not_answer_costs_no_attempt(bench: Bench) -> None:
    bench.fail(1)
    bench.sink.bad[1] = SinkUnavailable("no answer")
    await bench.wait(30.0)
    (key,) = await bench.keys()
    assert (key.attempts, key.parked) == (1, False)
    assert len(bench.sink.offers) > 5


@pytest.mark.parametrize("error", [SinkGone("410"), ConfigError(["no such stream"])])
async def test_what_would_pause_or_stop_everybody_parks_this_key(bench: Bench, error: Exception) -> None:
    bench.fail(1)
    bench.sink.bad[1] = error
    await bench.wait(0.2)
    (key,) = await bench.keys()
    assert key.parked
    assert not bench.gate.paused


async def test_an_outage_parks_nothing_and_its_end_is_noticed_soon(journal: MemoryJournal) -> None:
    bench = Bench(journal, attempts=15)
    await bench.start()
    for number in range(OUTAGE_KEYS):
        bench.fail(number)
    assert bench.keeper.health.outage
    await bench.wait(120.0)
    assert [(key.attempts, key.parked) for key in await bench.keys()] == [(1, False)] * OUTAGE_KEYS
    bench.sink.bad.clear()
    bench.keeper.succeeded()
    await bench.wait(1.1)
    assert await bench.keys() == []
    await bench.stop()


async def test_two_keys_that_an_update_ties_together_are_one(bench: Bench) -> None:
    bench.fail(1)
    bench.fail(2)
    tie = change("update", new={"id": 1}, old={"id": 2}, ordinal=9)
    assert bench.keeper.join(tie) is None
    (key,) = await bench.keys()
    assert (key.number, key.changes, len(key.keys)) == (0, 3, 2)
    assert Released("cache", 1) in bench.observer.told
    bench.sink.bad.clear()
    await bench.wait(0.2)
    assert bench.sink.delivered == [1, 2, 9]


async def test_a_key_that_becomes_part_of_a_parked_one_while_it_is_tried_does_not_wake_it(bench: Bench) -> None:
    bench.fail(1, SinkRejected("no"))
    bench.fail(2)
    bench.sink.stuck = asyncio.Event()
    await bench.wait(0.2)
    assert bench.sink.offers == [[2]]
    bench.keeper.join(change("update", new={"id": 1}, old={"id": 2}, ordinal=9))
    bench.sink.stuck.set()
    await bench.wait(5.0)
    (key,) = await bench.keys()
    assert (key.parked, key.attempts, bench.sink.offers) == (True, 1, [[2]])
    assert await bench.kept() == [1, 2, 9]


async def test_a_truncate_follows_each_held_row_as_a_delete(bench: Bench) -> None:
    other = builders.table("public.other", relation_oid=16400)
    bench.fail(1)
    bench.fail(2)
    bench.keeper.hold(change(of=other, new={"id": 1}, ordinal=3), BUG)
    await bench.keeper.join_truncate(change("truncate", ordinal=4))
    # It comes again after a restart.
    await bench.keeper.join_truncate(change("truncate", ordinal=4))
    kept = await bench.journal.held_changes("cache")
    assert [(one.key_number, one.change.operation.value, one.change.key) for one in kept] == [
        (0, "insert", (1,)),
        (1, "insert", (2,)),
        (2, "insert", (1,)),
        (0, "delete", (1,)),
        (1, "delete", (2,)),
    ]


# Over a restart


async def test_the_next_process_takes_up_what_is_held(journal: MemoryJournal) -> None:
    first = Bench(journal)
    first.fail(1)
    first.keeper.join(first.row(1))
    first.fail(2, SinkRejected("no"))
    second = Bench(journal)
    # The clock on the wall was put back by a day: nobody waits for it to come round again.
    second.wall -= 86400.0
    await second.start()
    assert (second.keeper.held.changes, len(list(second.keeper.held))) == (3, 2)
    # These come again, because the cursor was behind.
    assert second.keeper.join(change(new={"id": 1}, ordinal=2)) is None
    assert await second.kept() == [1, 2, 3]
    assert second.keeper.join(change(new={"id": 1}, ordinal=7)) is None
    await second.wait(61.0)
    # Nothing is tried before the stream is past what was held when the last process ended.
    second.keeper.came_to(Position(0x1000, 2))
    await second.wait(1.0)
    assert second.sink.offers == []
    second.keeper.came_to(Position(0x1000, 3))
    await second.wait(1.0)
    assert second.sink.delivered == [1, 2, 7]
    assert [key.parked for key in await second.keys()] == [True]
    await second.stop()


async def test_a_key_that_owes_nothing_any_more_is_forgotten(journal: MemoryJournal) -> None:
    first = Bench(journal)
    first.fail(1, SinkRejected("no"))
    journal.let_go("cache", [0])
    second = Bench(journal)
    await second.keeper.load()
    assert not second.keeper.held
    assert await second.keys() == []


# What people do


async def test_redrive_tries_a_parked_key_at_once_with_all_its_attempts(bench: Bench) -> None:
    bench.fail(1, SinkRejected("no"))
    bench.fail(2, SinkRejected("no"))
    bench.sink.bad = {1: BUG}
    assert bench.keeper.redrive(0) == 1
    await bench.wait(0.05)
    assert bench.sink.offers == [[1]]
    (key, other) = await bench.keys()
    assert (key.attempts, key.parked, other.parked) == (1, False, True)
    assert bench.keeper.redrive() == 1
    await bench.wait(0.05)
    assert bench.sink.delivered == [2]
    with pytest.raises(KeyError):
        bench.keeper.redrive(99)


async def test_discard_forgets_what_failed_and_tries_the_rest(bench: Bench) -> None:
    bench.fail(1, SinkRejected("no"))
    bench.keeper.join(bench.row(1))
    bench.sink.bad.clear()
    assert await bench.keeper.discard(0, everything=False) == 1
    await bench.wait(0.05)
    assert (bench.sink.delivered, await bench.keys()) == ([2], [])
    with pytest.raises(KeyError):
        await bench.keeper.discard(0, everything=False)


async def test_discard_of_everything_forgets_the_key(bench: Bench) -> None:
    bench.fail(1, SinkRejected("no"))
    for _ in range(3):
        bench.keeper.join(bench.row(1))
    assert await bench.keeper.discard(0, everything=True) == 4
    assert (await bench.keys(), await bench.kept(), bench.keeper.held.changes) == ([], [], 0)


async def test_discard_waits_for_what_is_under_way_and_nothing_else_begins_meanwhile(bench: Bench) -> None:
    bench.fail(1)
    bench.keeper.join(bench.row(1))
    bench.sink.stuck = asyncio.Event()
    await bench.wait(0.2)
    assert bench.sink.offers == [[1]]
    asked = asyncio.create_task(bench.keeper.discard(0, everything=False))
    await ticks(20)
    assert not asked.done()
    bench.sink.bad.clear()
    bench.journal.hold()
    bench.sink.stuck.set()
    await bench.wait(0.2)
    bench.journal.release()
    # The first was delivered meanwhile, so the second was forgotten, and each was one of the two.
    assert await asked == 1
    await bench.wait(0.2)
    assert (bench.sink.delivered, await bench.kept(), bench.keeper.held.changes) == ([1], [], 0)


async def test_two_who_discard_at_once_forget_two_changes(bench: Bench) -> None:
    bench.fail(1, SinkRejected("no"))
    for _ in range(2):
        bench.keeper.join(bench.row(1))
    discards = [bench.keeper.discard(0, everything=False) for _ in range(2)]
    assert await asyncio.gather(*discards) == [1, 1]
    assert await bench.kept() == [3]
    assert bench.keeper.held.changes == 1


async def test_paused_nothing_is_tried_and_a_person_can_discard(bench: Bench) -> None:
    bench.fail(1)
    bench.gate.pause()
    await bench.wait(5.0)
    assert bench.sink.offers == []
    assert await asyncio.wait_for(bench.keeper.discard(0, everything=True), 1.0) == 1
    bench.fail(2)
    await bench.wait(1.0)
    bench.gate.resume()
    bench.keeper.wake()
    await bench.wait(0.1)
    assert bench.sink.offers == [[2]]


# Room, and the end


async def test_full_it_waits_until_a_person_makes_room(journal: MemoryJournal) -> None:
    bench = Bench(journal, parked_max=2)
    await bench.start()
    for key in (1, 2):
        await bench.keeper.room()
        bench.fail(key, SinkRejected("no"))
    assert bench.keeper.full
    waiting = asyncio.create_task(bench.keeper.room())
    await ticks(20)
    assert not waiting.done()
    await bench.keeper.discard(0, everything=True)
    await waiting
    states = [told.state for told in bench.observer.told if isinstance(told, SubscriptionState)]
    assert states == ["full", "running"]
    await bench.stop()


async def test_drained_it_ends_what_is_under_way_and_begins_nothing(bench: Bench) -> None:
    bench.fail(1)
    bench.sink.stuck = asyncio.Event()
    await bench.wait(0.2)
    stopping = asyncio.create_task(bench.stop())
    await bench.wait(1.0)
    assert not stopping.done()
    bench.sink.bad.clear()
    bench.sink.stuck.set()
    await stopping
    assert (bench.sink.delivered, await bench.keys()) == ([1], [])
    bench.keeper._parked_max = 0
    with pytest.raises(Draining):
        await bench.keeper.room()


async def test_a_journal_that_breaks_ends_it_loudly(bench: Bench) -> None:
    bench.fail(1)
    bench.journal.fail()
    bench.clock.advance(1.0)
    assert bench.task is not None
    with pytest.raises(Exception, match="the disk is full"):
        await bench.task
    bench.task = None
    bench.journal._intake = None


# Words


def test_a_key_is_written_for_people() -> None:
    pair = builders.table("public.pairs", {"a": "int8", "b": "text"}, key=("a", "b"))
    assert key_text(change(of=pair, new={"a": 1, "b": "é"})) == '{"a":1,"b":"é"}'
    assert key_text(change("truncate", lsn=0x10, ordinal=3)) == "0/10:3"
    long = key_text(change(of=pair, new={"a": 1, "b": "x" * 1000}))
    assert len(long) == KEY_CHARACTERS_MAX + 1


def test_every_error_has_a_remedy() -> None:
    remedies: list[Any] = [remedy_of(BUG), remedy_of(KeyError())]
    assert all(remedies)
