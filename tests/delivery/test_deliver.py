"""One batch and one sink: what is settled, what is held, what is offered again, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from backend_watcher import probes
from backend_watcher.contracts import Receipt
from backend_watcher.delivery.deliver import Deliverer, SubscriptionStopped
from backend_watcher.delivery.gate import Draining, Gate
from backend_watcher.delivery.health import OUTAGE_KEYS
from backend_watcher.delivery.parked import Attempt, Keeper
from backend_watcher.delivery.retry import DELAY_SECONDS_MIN, SINK_SECONDS_MAX, Patience
from backend_watcher.delivery.route import Route, Rule
from backend_watcher.delivery.subscription import Options, Subscription
from backend_watcher.errors import (
    ConfigError,
    HandlerError,
    PartlyWritten,
    SinkFailed,
    SinkGone,
    SinkRejected,
    SinkTimeout,
    SinkUnavailable,
    Skip,
    SomeFailed,
)
from backend_watcher.events.change import TRUNCATE, Change
from backend_watcher.events.row import UNCHANGED
from backend_watcher.journal import MemoryJournal
from backend_watcher.sinks.memory import FailAfterWrite, Fault, Hold, Memory, Reject, Unavailable
from backend_watcher.testing.builders import change, transaction
from backend_watcher.testing.fakes import Delivered, OwnedClock, RecordingObserver, Skipped

from .feeding import ticks

PRODUCTS = "public.products"
BATCH = [change(new={"id": n}, ordinal=n, within=transaction(commit_micros=77)) for n in range(5)]


class Bench:
    """A deliverer with a journal, a clock that runs by itself, and everything it said."""

    def __init__(self, journal: MemoryJournal, sink: object, **options: Any) -> None:
        self.clock = OwnedClock(free_running=True)
        self.observer = RecordingObserver()
        self.settled: list[int] = []
        self.paused: list[BaseException] = []
        self.journal = journal
        rule = Rule(PRODUCTS, predicate=options.pop("predicate", None))
        transforms = options.pop("transforms", ())
        self.taken: list[list[int]] = []
        wanted = replace(Options(), **options)
        self.gate = Gate(self.clock)
        subscription = Subscription("cache", Route({PRODUCTS: rule}), sink, transforms, wanted)  # type: ignore[arg-type]
        self.keeper = Keeper(
            "cache",
            journal,
            self.gate,
            self.clock,
            self.observer,
            wanted.patience,
            parked_max=wanted.parked_max,
            batch=wanted.batch.changes,
            at_once=wanted.concurrency,
            draw=lambda: 0.5,
        )
        self.deliverer = Deliverer(
            subscription, self.keeper, self.gate, self.clock, self.observer, self._pause, self._took
        )

    def _took(self, changes: Sequence[Change]) -> None:
        self.taken.append([one.ordinal for one in changes])

    async def _pause(self, error: BaseException) -> None:
        self.paused.append(error)
        self.gate.pause()

    async def deliver(self, batch: Sequence[Change] = BATCH) -> None:
        await self.deliverer.deliver(batch, self.settled.extend)

    async def held(self) -> list[list[int]]:
        """The ordinals of what is held, for each key."""
        keys = await self.journal.held_keys("cache")
        return [[one.change.ordinal for one in await self.journal.held_changes("cache", key.number)] for key in keys]

    @property
    def delays(self) -> list[float | None]:
        return [failure.retry_seconds for failure in self.observer.failures]

    @property
    def attempts(self) -> list[int]:
        return [failure.attempt for failure in self.observer.failures]


@pytest.fixture
def bench(journal: MemoryJournal) -> Callable[..., tuple[Bench, Memory]]:
    def make(*faults: Fault | None, **options: Any) -> tuple[Bench, Memory]:
        sink = Memory()
        sink.script(*faults)
        return Bench(journal, sink, **options), sink

    return make


def ordinals(sink: Memory) -> list[int]:
    return [one.ordinal for one in sink.changes]


class Raising(Memory):
    """Raises what it is told, one after the other, then works; `places` are what it was offered."""

    def __init__(self, *errors: BaseException | None, receipt: Receipt = Receipt.DURABLE) -> None:
        super().__init__(receipt=receipt)
        self.errors = list(errors)
        self.offered: list[list[int]] = []

    async def write(self, batch: Sequence[Change]) -> Receipt:
        self.offered.append([one.ordinal for one in batch])
        error = self.errors.pop(0) if self.errors else None
        if isinstance(error, PartlyWritten):
            self._keep(batch[: error.settled])
        if isinstance(error, SomeFailed):
            self._keep([one for n, one in enumerate(batch) if n not in error.failures])
        if error is not None:
            raise error
        return await super().write(batch)


class Picky(Memory):
    """Takes a batch as a whole or not at all, and never one with these ordinals."""

    def __init__(self, *bad: int, error: type[Exception] = SinkRejected) -> None:
        super().__init__()
        self.bad = set(bad)
        self.error = error
        self.offered: list[list[int]] = []

    async def write(self, batch: Sequence[Change]) -> Receipt:
        self.offered.append([one.ordinal for one in batch])
        if any(one.ordinal in self.bad for one in batch):
            raise self.error("not this one")
        return await super().write(batch)


# What the sink took


async def test_what_the_sink_took_is_settled_at_once_and_told(bench: Any) -> None:
    one, sink = bench()
    await one.deliver()
    assert (one.settled, ordinals(sink)) == ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    assert one.observer.told == [Delivered("cache", 5, 0.0, 77)]


async def test_who_reads_back_is_told_of_what_the_sink_took_and_of_nothing_else(journal: MemoryJournal) -> None:
    odd = Bench(journal, Picky(1, 3), transforms=(lambda one: None if one.ordinal == 4 else one,))
    await odd.deliver()
    assert sorted(number for part in odd.taken for number in part) == [0, 2]
    parts = Bench(journal, Raising(PartlyWritten(2, SinkUnavailable("gone")), SomeFailed({1: SinkRejected("no")})))
    await parts.deliver()
    assert parts.taken == [[0, 1], [2, 4]]


async def test_accepted_is_settled_only_after_the_flush(journal: MemoryJournal) -> None:
    class Lazy(Memory):
        async def flush(self) -> None:
            assert one.settled == []
            await super().flush()
            if self.flushes == 1:
                raise SinkUnavailable("gone before the flush")

    one = Bench(journal, sink := Lazy(receipt=Receipt.ACCEPTED))
    await one.deliver()
    assert (one.settled, sink.flushes, ordinals(sink)) == ([0, 1, 2, 3, 4], 2, [0, 1, 2, 3, 4] * 2)


async def test_durable_needs_no_flush(bench: Any) -> None:
    one, sink = bench()
    await one.deliver()
    assert sink.flushes == 0


# What failed because of the sink


async def test_the_same_batch_is_offered_again_with_growing_delays(bench: Any) -> None:
    one, sink = bench(*[Unavailable()] * 6)
    await one.deliver()
    assert (one.settled, ordinals(sink)) == ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    assert one.attempts == [1, 2, 3, 4, 5, 6]
    assert one.clock.sleeps == one.delays
    assert one.delays[0] == DELAY_SECONDS_MIN
    for last, delay in zip(one.clock.sleeps, one.clock.sleeps[1:], strict=False):
        assert DELAY_SECONDS_MIN <= delay <= min(3 * last, SINK_SECONDS_MAX)
    assert await one.held() == []


async def test_a_lost_answer_delivers_everything_twice(bench: Any) -> None:
    one, sink = bench(FailAfterWrite())
    await one.deliver()
    assert (one.settled, ordinals(sink)) == ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4] * 2)
    assert isinstance(one.observer.failures[0].error, SinkTimeout)


async def test_it_is_not_asked_before_it_wishes(journal: MemoryJournal) -> None:
    one = Bench(journal, Raising(SinkUnavailable("429", after_seconds=30.0)))
    await one.deliver()
    assert one.delays == [30.0]


async def test_progress_makes_the_delay_short_again(journal: MemoryJournal) -> None:
    gone = SinkUnavailable("again")
    one = Bench(journal, sink := Raising(*[gone] * 6, PartlyWritten(2, gone)))
    await one.deliver()
    assert ordinals(sink) == [0, 1, 2, 3, 4]
    assert one.delays[6] == DELAY_SECONDS_MIN
    assert one.attempts == [1, 2, 3, 4, 5, 6, 1]


async def test_no_answer_in_time_is_a_failure(bench: Any) -> None:
    one, sink = bench(held := Hold(), timeout_seconds=0.02)
    await one.deliver()
    assert held.reached.is_set()
    assert (sorted(one.settled), ordinals(sink)) == ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    assert str(one.observer.failures[0].error) == "no answer in 0.02 s"


async def test_a_flush_without_an_answer_in_time_is_a_failure(journal: MemoryJournal) -> None:
    class Stuck(Memory):
        async def flush(self) -> None:
            await super().flush()
            if self.flushes == 1:
                await asyncio.Event().wait()

    one = Bench(journal, sink := Stuck(receipt=Receipt.ACCEPTED), timeout_seconds=0.02)
    async with asyncio.timeout(5):
        await one.deliver()
    assert (one.settled, ordinals(sink)) == ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4] * 2)
    assert isinstance(one.observer.failures[0].error, SinkTimeout)


async def test_a_sink_that_times_itself_is_not_hurried(journal: MemoryJournal) -> None:
    class Patient(Memory):
        times_itself = True

    sink = Patient()
    sink.script(held := Hold())
    one = Bench(journal, sink, timeout_seconds=0.0)
    task = asyncio.create_task(one.deliver())
    await held.reached.wait()
    held.release.set()
    await task
    assert (one.settled, one.delays) == ([0, 1, 2, 3, 4], [])


async def test_it_waits_by_the_clock_it_was_given(bench: Any) -> None:
    one, _ = bench(Unavailable())
    one.clock._free_running = False
    task = asyncio.create_task(one.deliver())
    await one.clock.wait_for_sleeper()
    one.clock.advance(DELAY_SECONDS_MIN / 2)
    await ticks(20)
    assert not task.done()
    one.clock.advance(DELAY_SECONDS_MIN / 2)
    await task
    assert one.settled == [0, 1, 2, 3, 4]


# What failed because of a change


async def test_a_change_that_is_refused_is_held_alone_and_the_rest_goes_on(bench: Any) -> None:
    one, sink = bench(Reject(settled=2))
    await one.deliver()
    assert (sorted(one.settled), ordinals(sink)) == ([0, 1, 2, 3, 4], [0, 1, 3, 4])
    assert await one.held() == [[2]]
    (key,) = await one.journal.held_keys("cache")
    assert (key.key, key.parked, key.attempts, key.error) == ('{"id":2}', True, 1, "SinkRejected: rejected by a test")
    assert one.delays == []


async def test_what_may_pass_another_time_is_held_with_a_time(journal: MemoryJournal) -> None:
    one = Bench(journal, sink := Raising(PartlyWritten(2, KeyError("stock"))))
    await one.deliver()
    (key,) = await journal.held_keys("cache")
    assert not key.parked
    assert ordinals(sink) == [0, 1, 3, 4]


async def test_later_changes_of_a_held_key_join_it_and_no_others(journal: MemoryJournal) -> None:
    one = Bench(journal, sink := Raising(PartlyWritten(0, HandlerError("bug"))))
    batch = [change(new={"id": n % 2}, ordinal=n) for n in range(6)]
    await one.deliver(batch)
    assert ordinals(sink) == [1, 3, 5]
    assert await one.held() == [[0, 2, 4]]
    assert sorted(one.settled) == [0, 1, 2, 3, 4, 5]


async def test_each_failure_of_a_batch_is_judged_by_itself(journal: MemoryJournal) -> None:
    failures = {0: SinkRejected("no"), 1: Skip("not mine"), 3: SinkUnavailable("no answer")}
    one = Bench(journal, sink := Raising(SomeFailed(failures)))
    await one.deliver()
    assert sink.offered == [[0, 1, 2, 3, 4], [3]]
    assert ordinals(sink) == [2, 4, 3]
    assert await one.held() == [[0]]
    assert [(told.position.ordinal, told.reason) for told in one.observer.told if isinstance(told, Skipped)] == [
        (1, "not mine")
    ]


async def test_what_waits_for_the_sink_is_not_overtaken_by_what_is_held_of_its_key(journal: MemoryJournal) -> None:
    # Held, the newer one would be taken for all of the key, and the older one for done.
    one = Bench(journal, sink := Raising(SomeFailed({0: SinkUnavailable("no"), 2: SinkRejected("no")})))
    batch = [change(new={"id": key}, ordinal=n) for n, key in enumerate([1, 2, 1])]
    await one.deliver(batch)
    assert ordinals(sink) == [1, 0, 2]


async def test_skip_settles_one_change_and_is_told(journal: MemoryJournal) -> None:
    one = Bench(journal, sink := Raising(PartlyWritten(1, Skip("not mine"))))
    await one.deliver()
    assert (ordinals(sink), sorted(one.settled)) == ([0, 2, 3, 4], [0, 1, 2, 3, 4])
    assert await one.held() == []
    assert Skipped("cache", BATCH[1].position, "not mine") in one.observer.told


@pytest.mark.parametrize("error", [KeyError("stock"), HandlerError("bug"), SinkFailed("500")])
async def test_a_batch_that_fails_as_a_whole_is_halved_until_one_stands_alone(
    journal: MemoryJournal, error: Exception
) -> None:
    class Whole(Picky):
        async def write(self, batch: Sequence[Change]) -> Receipt:
            self.offered.append([one.ordinal for one in batch])
            if any(one.ordinal in self.bad for one in batch):
                raise error
            return await Memory.write(self, batch)

    one = Bench(journal, sink := Whole(3))
    await one.deliver()
    assert sink.offered == [[0, 1, 2, 3, 4], [0, 1], [2, 3, 4], [2], [3, 4], [3], [4]]
    assert ordinals(sink) == [0, 1, 2, 4]
    assert await one.held() == [[3]]


async def test_halves_keep_their_order_where_much_of_them_fails(journal: MemoryJournal) -> None:
    batch = [change(new={"id": n % 3}, ordinal=n) for n in range(20)]
    one = Bench(journal, sink := Picky(4, 9, 11))
    await one.deliver(batch)
    assert sorted(one.settled) == list(range(20))
    held = await one.held()
    assert held == [[4, 7, 10, 13, 16, 19], [9, 12, 15, 18], [11, 14, 17]]
    assert ordinals(sink) == [n for n in range(20) if n not in {*held[0], *held[1], *held[2]}]


async def test_while_it_looks_like_an_outage_nobody_is_held(journal: MemoryJournal) -> None:
    many = [change(new={"id": n}, ordinal=n) for n in range(OUTAGE_KEYS + 3)]
    one = Bench(journal, sink := Raising(*[PartlyWritten(0, HandlerError("db"))] * (OUTAGE_KEYS + 5)))
    await one.deliver(many)
    assert len(await one.held()) == OUTAGE_KEYS
    assert ordinals(sink) == [OUTAGE_KEYS, OUTAGE_KEYS + 1, OUTAGE_KEYS + 2]
    assert [failure.attempt for failure in one.observer.failures] == [1, 2, 3, 4, 5]


async def test_without_parking_the_change_is_offered_without_end(journal: MemoryJournal) -> None:
    one = Bench(journal, sink := Raising(*[PartlyWritten(0, SinkRejected("no"))] * 9), patience=Patience(park=False))
    await one.deliver()
    assert (len(sink.offered), ordinals(sink)) == (10, [0, 1, 2, 3, 4])
    assert await one.held() == []


# Transforms and predicates, and what stands for several


async def test_what_a_function_on_the_way_raises_is_the_failure_of_that_change(journal: MemoryJournal) -> None:
    def picky(one: Change) -> Change | None:
        if one.ordinal == 2:
            raise KeyError("colour")
        return None if one.ordinal == 1 else one

    one = Bench(journal, sink := Raising(), transforms=(picky,))
    await one.deliver()
    assert (ordinals(sink), sorted(one.settled)) == ([0, 3, 4], [0, 1, 2, 3, 4])
    assert await one.held() == [[2]]


@pytest.mark.parametrize(
    "error", [SomeFailed({0: SinkRejected("no")}), PartlyWritten(1, SinkRejected("no")), SinkUnavailable("no")]
)
async def test_what_comes_after_a_raising_predicate_was_not_offered_and_is_not_done(
    journal: MemoryJournal, error: Exception
) -> None:
    def raising(one: Change) -> bool:
        if one.ordinal == 2:
            raise KeyError("colour")
        return True

    one = Bench(journal, sink := Raising(error), predicate=raising)
    await one.deliver()
    held = [ordinal for key in await one.held() for ordinal in key]
    assert sorted(ordinals(sink) + held) == [0, 1, 2, 3, 4]
    assert sorted(one.settled) == [0, 1, 2, 3, 4]


async def test_a_predicate_drops_without_a_trace(journal: MemoryJournal) -> None:
    one = Bench(journal, sink := Raising(), predicate=lambda one: False)
    await one.deliver()
    assert (one.settled, sink.offered, one.observer.told) == ([0, 1, 2, 3, 4], [], [])


async def test_coalesced_only_the_newest_of_each_key_is_delivered_and_all_settled(journal: MemoryJournal) -> None:
    one = Bench(journal, sink := Raising(), coalesce=True)
    await one.deliver([change(new={"id": n % 2}, ordinal=n) for n in range(6)])
    assert (ordinals(sink), one.settled) == ([4, 5], [0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize("error", [PartlyWritten(1, HandlerError("bug")), SomeFailed({1: HandlerError("bug")})])
async def test_coalesced_a_failing_key_is_held_with_all_that_its_newest_change_stands_for(
    journal: MemoryJournal, error: Exception
) -> None:
    rows: list[dict[str, Any]] = [{"id": 0, "name": "long"}, {"id": 1}, {"id": 1}, {"id": 0, "name": UNCHANGED}]
    batch = [change("update", new=row, ordinal=n) for n, row in enumerate(rows)]
    one = Bench(journal, sink := Raising(error), coalesce=True)
    await one.deliver(batch)
    assert (ordinals(sink), sorted(one.settled)) == ([2], [0, 1, 2, 3])
    # What only the older one says is not lost.
    assert await one.held() == [[0, 3]]


# What concerns more than one key


async def test_in_one_lane_a_truncate_is_offered_by_itself_and_follows_what_is_held(journal: MemoryJournal) -> None:
    batch = [
        change(new={"id": 1}, ordinal=0),
        change(new={"id": 2}, ordinal=1),
        change("truncate", ordinal=2),
        change(new={"id": 1}, ordinal=3),
    ]
    one = Bench(journal, sink := Raising(PartlyWritten(0, HandlerError("bug"))), concurrency=1)
    await one.deliver(batch)
    assert sink.offered == [[0, 1], [1], [2]]
    held = await journal.held_changes("cache")
    assert [(h.change.operation.value, h.change.ordinal) for h in held] == [("insert", 0), ("delete", 2), ("insert", 3)]


async def test_a_truncate_that_does_not_get_to_the_sink_does_not_get_to_what_is_held(journal: MemoryJournal) -> None:
    batch = [change(new={"id": 1}, ordinal=0), change("truncate", ordinal=1)]
    no_truncates = (lambda one: None if one.code == TRUNCATE else one,)
    sink = Raising(PartlyWritten(0, HandlerError("bug")))
    one = Bench(journal, sink, concurrency=1, transforms=no_truncates)
    await one.deliver(batch)
    assert await one.held() == [[0]]


async def test_a_truncate_that_fails_is_offered_again_whatever_the_error(journal: MemoryJournal) -> None:
    one = Bench(journal, sink := Raising(SinkRejected("no"), HandlerError("bug")), concurrency=1)
    await one.deliver([change("truncate", ordinal=0)])
    assert (ordinals(sink), one.attempts, await one.held()) == ([0], [1, 2], [])


async def test_a_key_that_is_tied_to_a_held_one_joins_after_what_is_ahead_of_it(journal: MemoryJournal) -> None:
    # 1 is held; 2 is changed, and becomes 1: that must not join 1 before 2's own change is done with.
    tie = change("update", new={"id": 1}, old={"id": 2}, ordinal=2)
    batch = [change(new={"id": 1}, ordinal=0), change(new={"id": 2}, ordinal=1), tie]
    error = HandlerError("bug")
    one = Bench(journal, sink := Raising(PartlyWritten(0, error), PartlyWritten(0, error)), concurrency=1)
    await one.deliver(batch)
    assert (ordinals(sink), sorted(one.settled)) == ([], [0, 1, 2])
    assert await one.held() == [[0, 1, 2]]


# Room, pause, the end


async def test_no_more_is_held_than_there_is_room_for(journal: MemoryJournal) -> None:
    batch = [change(new={"id": n % 2}, ordinal=n) for n in range(8)]
    one = Bench(journal, Raising(PartlyWritten(0, SinkRejected("no"))), parked_max=3)
    task = asyncio.create_task(one.deliver(batch))
    await ticks(50)
    assert await one.held() == [[0, 2, 4]]
    assert not task.done()
    await one.keeper.discard(0, everything=True)
    await task
    assert sorted(one.settled) == list(range(8))


async def test_drained_it_does_not_wait_for_room(journal: MemoryJournal) -> None:
    one = Bench(journal, Raising(*[PartlyWritten(0, SinkRejected("no"))] * 2), parked_max=1)
    task = asyncio.create_task(one.deliver())
    await ticks(50)
    one.gate.drain()
    with pytest.raises(Draining):
        await task
    assert one.settled == [0]


async def test_what_only_a_person_can_answer_pauses_and_loses_nothing(journal: MemoryJournal) -> None:
    one = Bench(journal, sink := Raising(PartlyWritten(1, SinkGone("410"))))
    task = asyncio.create_task(one.deliver())
    await ticks(20)
    assert (str(one.paused[0]), ordinals(sink), one.delays) == ("410", [0], [None])
    one.gate.resume()
    await task
    assert ordinals(sink) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("error", [ConfigError(["no such stream"]), PartlyWritten(2, ConfigError(["no such stream"]))])
async def test_an_error_that_a_person_must_mend_stops(journal: MemoryJournal, error: Exception) -> None:
    one = Bench(journal, Raising(error))
    with pytest.raises(SubscriptionStopped, match="cache: no such stream") as caught:
        await one.deliver()
    assert isinstance(caught.value.__cause__, ConfigError)
    assert one.delays == [None]
    assert one.clock.sleeps == []
    assert one.settled == ([0, 1] if isinstance(error, PartlyWritten) else [])


async def test_a_sink_that_cancels_itself_is_a_failure_and_not_the_end(journal: MemoryJournal) -> None:
    class Cancelling(Memory):
        async def write(self, batch: Sequence[Change]) -> Receipt:
            if any(one.ordinal == 3 for one in batch):
                raise asyncio.CancelledError
            return await super().write(batch)

    one = Bench(journal, sink := Cancelling())
    await one.deliver()
    assert ordinals(sink) == [0, 1, 2, 4]
    (key,) = await journal.held_keys("cache")
    assert key.error == "SinkError: the sink cancelled its own work"


async def test_cancelled_from_outside_it_ends_and_settles_nothing(bench: Any) -> None:
    one, sink = bench(held := Hold())
    task = asyncio.create_task(one.deliver())
    await held.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (one.settled, one.delays, list(sink.changes)) == ([], [], [])


# Held keys, once


@pytest.mark.parametrize(
    ("error", "done", "left"),
    [
        (None, 5, None),
        (PartlyWritten(2, HandlerError("bug")), 2, HandlerError),
        (SomeFailed({1: SinkRejected("no"), 3: SinkRejected("no")}), 1, SinkRejected),
        (PartlyWritten(2, Skip("not mine")), 3, None),
        (SinkUnavailable("no"), 0, SinkUnavailable),
    ],
)
async def test_offered_once_it_says_how_far_it_came(
    journal: MemoryJournal, error: Exception | None, done: int, left: type[Exception] | None
) -> None:
    one = Bench(journal, Raising(error))
    attempt = await one.deliverer.offer_once(BATCH)
    assert attempt.done == done
    assert attempt.error is None if left is None else isinstance(attempt.error, left)


async def test_offered_once_a_batch_that_fails_as_a_whole_is_tried_in_smaller_ones(journal: MemoryJournal) -> None:
    one = Bench(journal, sink := Picky(2, error=HandlerError))
    assert await one.deliverer.offer_once(BATCH) == Attempt(2, None)
    attempt = await one.deliverer.offer_once(BATCH[2:])
    assert (attempt.done, isinstance(attempt.error, HandlerError)) == (0, True)
    assert sink.offered == [[0, 1, 2, 3, 4], [0, 1], [2, 3, 4], [2]]


async def test_offered_once_and_coalesced_it_comes_back_with_a_reason_or_some_progress(journal: MemoryJournal) -> None:
    # The first is taken together with the last, and what is between them fails.
    rows = [change(new={"id": key}, ordinal=n) for n, key in enumerate([1, 2, 1])]
    one = Bench(journal, Raising(PartlyWritten(0, HandlerError("bug"))), coalesce=True)
    attempt = await one.deliverer.offer_once(rows)
    assert (attempt.done, isinstance(attempt.error, HandlerError)) == (0, True)


# Opening


async def test_opening_is_insisted_on(journal: MemoryJournal) -> None:
    class Slow(Memory):
        opened = 0

        async def open(self) -> None:
            self.opened += 1
            if self.opened < 4:
                raise ConnectionRefusedError

    one = Bench(journal, sink := Slow())
    await one.deliverer.open()
    assert (sink.opened, one.attempts, len(one.clock.sleeps)) == (4, [1, 2, 3], 3)


async def test_a_sink_that_cannot_ever_be_opened_stops(journal: MemoryJournal) -> None:
    class Wrong(Memory):
        async def open(self) -> None:
            raise ConfigError(["url is wrong"])

    with pytest.raises(SubscriptionStopped, match="url is wrong"):
        await Bench(journal, Wrong()).deliverer.open()


async def test_a_sink_that_wants_no_more_is_opened_when_a_person_resumes(journal: MemoryJournal) -> None:
    class Gone(Memory):
        async def open(self) -> None:
            if not one.paused:
                raise SinkGone("410")

    one = Bench(journal, Gone())
    task = asyncio.create_task(one.deliverer.open())
    await ticks(20)
    assert not task.done()
    one.gate.resume()
    await task


async def test_its_probes_are_reached_around_each_write(bench: Any) -> None:
    reached: list[str] = []
    for name in ("delivery.before_write", "delivery.after_write"):
        probes.arm(name, lambda name=name: reached.append(name))  # type: ignore[misc]
    one, _ = bench(Unavailable())
    await one.deliver()
    assert reached == ["delivery.before_write", "delivery.before_write", "delivery.after_write"]
