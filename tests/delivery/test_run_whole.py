"""Sinks that keep their position with the data: whole transactions, each change once, whatever ends in between."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from backend_watcher.contracts import Receipt, TransactionalSink
from backend_watcher.delivery.batch import BatchLimits
from backend_watcher.delivery.steer import Replay
from backend_watcher.errors import SinkFailed, SinkRejected, SinkTimeout, SinkUnavailable
from backend_watcher.events.change import Change
from backend_watcher.events.position import START, Position
from backend_watcher.events.transaction import Stream
from backend_watcher.journal import MemoryJournal
from backend_watcher.sinks.postgres_replica_once import due, late_of, newest
from backend_watcher.testing.chunks import ChunkMaker, read_all

from .chaos import random_ops
from .feeding import Feed, Op, ticks
from .test_run import Life, begin

SCHEDULES = 60


class Once:
    """What a replica does, in memory: a position, what came late, and how often each change was applied."""

    def __init__(self, dice: random.Random | None = None) -> None:
        self._dice = dice
        self.calm = dice is None
        self.name = ""
        self.position = START
        self.late: set[Any] = set()
        self.applied: Counter[Any] = Counter()
        self.batches: list[list[Position]] = []
        self.poison: set[int] = set()
        self.holding: asyncio.Event | None = None

    def belongs_to(self, subscription: str) -> None:
        self.name = subscription

    async def position_of(self, stream: Stream) -> Position:
        if not self.calm and self._dice is not None and self._dice.random() < 0.3:
            raise SinkUnavailable("gone")
        return self.position

    def describe(self) -> dict[str, Any]:
        return {"kind": "once"}

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def flush(self) -> None:
        pass

    async def write(self, batch: Sequence[Change]) -> Receipt:
        changes = due(batch, self.position, self.late)
        last = newest(changes)
        await self._fail_before(changes)
        self.applied.update(map(late_of, changes))
        if last is not None:
            self.position = last.position
        self.batches.append([change.position for change in batch])
        return self._answer()

    async def write_late(self, batch: Sequence[Change]) -> Receipt:
        await self._fail_before([change for change in batch if late_of(change) not in self.late])
        new = [late_of(change) for change in batch if late_of(change) not in self.late]
        self.late.update(new)
        self.applied.update(new)
        return self._answer()

    async def _fail_before(self, changes: Sequence[Change]) -> None:
        await ticks(self._dice.randint(0, 3) if self._dice else 0)
        if any(change.key and change.key[0] in self.poison for change in changes):
            raise SinkRejected("poison")
        # Before it looks at a change, a sink blames none.
        if not changes:
            return
        if not self.calm and self._dice is not None and self._dice.random() < 0.4:
            raise self._dice.choice([SinkRejected("no"), SinkFailed("bug"), SinkUnavailable("gone"), KeyError("bug")])

    def _answer(self) -> Receipt:
        if not self.calm and self._dice is not None and self._dice.random() < 0.15:
            raise SinkTimeout("the answer was lost")
        return Receipt.DURABLE


def transactions(sink: Once) -> list[set[int]]:
    return [{position.commit_lsn for position in batch} for batch in sink.batches]


def test_it_is_told_by_its_parts() -> None:
    assert isinstance(Once(), TransactionalSink)


async def test_each_change_is_applied_once_over_crashes_and_lost_answers(dice: random.Random) -> None:
    for _ in range(SCHEDULES):
        journal, sink = MemoryJournal(), Once(dice)
        await journal.open()
        feed = Feed(journal)
        options = {
            "batch": BatchLimits(dice.randint(1, 6)),
            "max_in_flight": dice.choice([1, 3, 100]),
            "timeout_seconds": 5.0,
        }
        for _ in range(dice.randint(1, 4)):
            sink.calm = False
            life = await begin(journal, sink, **options)
            for _ in range(dice.randint(1, 4)):
                await feed.commit(*random_ops(dice))
                await journal.flush()
                await ticks(dice.randint(0, 60))
            if dice.random() < 0.5:
                # From now on neither a cursor nor what is held or let go outlives a crash.
                journal.hold()
            await ticks(dice.randint(0, 60))
            if dice.random() < 0.7:
                journal.crash()
                life.task.cancel()
                await asyncio.gather(life.task, return_exceptions=True)
                await journal.open()
            else:
                journal.release()
                await life.drain()
        sink.calm = True
        await the_rest(journal, sink, options)
        wanted = {change.position: change for change in await read_all(journal)}
        counts = Counter((lsn, ordinal) for lsn, ordinal, _ in sink.applied.elements())
        assert set(counts) == {tuple(position) for position in wanted}
        again = {name: count for name, count in sink.applied.items() if count > 1}
        assert not again, f"applied more than once: {again}"
        await journal.close()


async def the_rest(journal: MemoryJournal, sink: Once, options: dict[str, Any]) -> None:
    last = await begin(journal, sink, **options)
    await last.until(journal.last_position)
    async with asyncio.timeout(20):
        while await journal.held_keys("cache"):
            last.loop.redrive()
            await ticks(5)
    await last.drain()


async def test_a_transaction_that_comes_in_pieces_is_one_batch(journal: MemoryJournal) -> None:
    sink, make = Once(), ChunkMaker()
    life = await begin(journal, sink, batch=BatchLimits(4))
    await journal.append(make(3))
    await journal.append(make(2, commit=False))
    await ticks(50)
    assert [len(batch) for batch in sink.batches] == [3]
    await journal.append(make(7, commit=False))
    await journal.append(make(1))
    await life.until(journal.last_position)
    assert [len(batch) for batch in sink.batches] == [3, 10]
    assert sink.name == "cache"
    await life.drain()


async def test_a_clean_stop_leaves_what_is_not_whole_for_the_next_start(journal: MemoryJournal) -> None:
    sink, make = Once(), ChunkMaker()
    life = await begin(journal, sink)
    await journal.append(make(1))
    await journal.append(make(2, commit=False))
    await life.until(Position(make.lsn - 0x100, 0))
    await life.drain()
    assert [len(batch) for batch in sink.batches] == [1]
    again = await begin(journal, sink)
    await journal.append(make(1))
    await again.until(journal.last_position)
    assert [len(batch) for batch in sink.batches] == [1, 3]
    await again.drain()


async def test_what_is_too_large_to_be_in_flight_comes_in_parts(journal: MemoryJournal) -> None:
    sink, make = Once(), ChunkMaker()
    life = await begin(journal, sink, max_in_flight=10, batch=BatchLimits(4))
    for _ in range(10):
        await journal.append(make(5, commit=False))
    await journal.append(make(1))
    await journal.append(make(2))
    await life.until(journal.last_position)
    sizes = [len(batch) for batch in sink.batches]
    assert sum(sizes) == 53
    assert max(sizes) <= 4
    assert sizes[-1] == 2
    await life.drain()


async def test_a_replay_does_not_wait_for_the_end_of_a_transaction(journal: MemoryJournal) -> None:
    sink, make = Once(), ChunkMaker()
    life = await begin(journal, sink)
    await journal.append(make(3))
    await life.until(journal.last_position)
    await journal.append(make(1, commit=False))
    await ticks(20)
    await life.loop.replay(Replay(START, journal.last_position))
    async with asyncio.timeout(20):
        while life.loop.waits_on_purpose:
            await ticks(1)
    await journal.append(make(1))
    await life.until(journal.last_position)
    assert sum(sink.applied.values()) >= 5
    await life.drain()


async def test_what_is_held_is_durable_before_anything_later_is_written(journal: MemoryJournal) -> None:
    sink, make = Once(), ChunkMaker()
    sink.poison = {2}
    life: Life = await begin(journal, sink, batch=BatchLimits(1))
    await journal.append(make(1))
    await life.until(journal.last_position)
    first = sink.position
    journal.hold()
    # The end of each of them is known by the next one.
    for _ in range(4):
        await journal.append(make(1))
    await ticks(200)
    assert sink.position == first
    journal.release()
    await life.until(journal.last_position)
    assert sink.position > first
    sink.poison = set()
    life.loop.redrive()
    async with asyncio.timeout(20):
        while await journal.held_keys("cache"):
            await ticks(5)
    assert set(sink.applied.values()) == {1}
    await life.drain()


async def test_a_truncate_does_not_divide_a_transaction(journal: MemoryJournal, feed: Feed) -> None:
    sink = Once()
    life = await begin(journal, sink)
    await feed.commit(Op("insert", 1), Op("truncate"), Op("insert", 2))
    await life.until(journal.last_position)
    assert [len(batch) for batch in sink.batches] == [3]
    sink.poison = {3}
    await feed.commit(Op("insert", 3), Op("insert", 4))
    await life.until(journal.last_position)
    await feed.commit(Op("insert", 5), Op("truncate"), Op("insert", 6))
    await life.until(journal.last_position)
    sink.poison = set()
    life.loop.redrive()
    async with asyncio.timeout(20):
        while await journal.held_keys("cache"):
            await ticks(5)
    # The held row was deleted once more, by what the truncate meant for it.
    assert len(sink.late) == 2
    await life.drain()


@pytest.mark.parametrize("asked", [1, 8])
async def test_it_has_one_lane_whatever_was_asked_for(journal: MemoryJournal, feed: Feed, asked: int) -> None:
    sink = Once()
    life = await begin(journal, sink, concurrency=asked)
    await feed.insert(1, 2, 3, 4, 5)
    await life.until(journal.last_position)
    assert [len(batch) for batch in sink.batches] == [5]
    await life.drain()
