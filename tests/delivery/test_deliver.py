"""One batch and one sink: what is settled, what is offered again, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from backend_watcher import probes
from backend_watcher.contracts import Receipt
from backend_watcher.delivery.deliver import Deliverer, SubscriptionStopped
from backend_watcher.delivery.retry import DELAY_SECONDS_MAX, DELAY_SECONDS_MIN
from backend_watcher.errors import (
    ConfigError,
    HandlerError,
    PartlyWritten,
    SinkError,
    SinkRejected,
    SinkTimeout,
    SinkUnavailable,
)
from backend_watcher.events.change import Change
from backend_watcher.sinks.memory import FailAfterWrite, Fault, Hold, Memory, Reject, Unavailable
from backend_watcher.testing.builders import change, transaction
from backend_watcher.testing.fakes import Delivered, OwnedClock, RecordingObserver

from .feeding import ticks

BATCH = [change(new={"id": n}, ordinal=n, within=transaction(commit_micros=77)) for n in range(5)]


class Bench:
    """A deliverer with a clock that runs by itself, and everything it said."""

    def __init__(self, sink: object, timeout_seconds: float = 30.0) -> None:
        self.clock = OwnedClock(free_running=True)
        self.observer = RecordingObserver()
        self.settled: list[int] = []
        self.deliverer = Deliverer("cache", sink, self.clock, self.observer, timeout_seconds)  # type: ignore[arg-type]

    async def deliver(self, batch: Sequence[Change] = BATCH) -> None:
        await self.deliverer.deliver(batch, self.settled.append)

    @property
    def delays(self) -> list[float | None]:
        return [failure.retry_seconds for failure in self.observer.failures]

    @property
    def attempts(self) -> list[int]:
        return [failure.attempt for failure in self.observer.failures]


def bench(*faults: Fault | None) -> tuple[Bench, Memory]:
    sink = Memory()
    sink.script(*faults)
    return Bench(sink), sink


def ordinals(sink: Memory) -> list[int]:
    return [one.ordinal for one in sink.changes]


async def test_what_the_sink_took_is_settled_at_once_and_told() -> None:
    one, sink = bench()
    await one.deliver()
    assert (one.settled, ordinals(sink)) == ([5], [0, 1, 2, 3, 4])
    assert one.observer.told == [Delivered("cache", 5, 0.0, 77)]


async def test_the_same_batch_is_offered_again_with_growing_delays() -> None:
    one, sink = bench(*[Unavailable()] * 6)
    await one.deliver()
    assert (one.settled, ordinals(sink)) == ([5], [0, 1, 2, 3, 4])
    assert one.attempts == [1, 2, 3, 4, 5, 6]
    assert one.clock.sleeps == one.delays
    assert one.delays[0] == DELAY_SECONDS_MIN
    for last, delay in zip(one.clock.sleeps, one.clock.sleeps[1:], strict=False):
        assert DELAY_SECONDS_MIN <= delay <= 3 * last


async def test_a_lost_answer_delivers_everything_twice() -> None:
    one, sink = bench(FailAfterWrite())
    await one.deliver()
    assert (one.settled, ordinals(sink)) == ([5], [0, 1, 2, 3, 4] * 2)
    assert isinstance(one.observer.failures[0].error, SinkTimeout)


async def test_only_the_rest_of_a_partly_written_batch_is_offered_again() -> None:
    one, sink = bench(Reject(settled=2), Reject(settled=0), Reject(settled=1))
    await one.deliver()
    assert (one.settled, ordinals(sink)) == ([2, 1, 2], [0, 1, 2, 3, 4])
    # After progress it is another change that fails, for the first time.
    assert one.attempts == [1, 2, 1]
    assert all(isinstance(failure.error, SinkRejected) for failure in one.observer.failures)
    assert one.observer.delivered_changes == 5


async def test_progress_makes_the_delay_short_again() -> None:
    class Slipping(Memory):
        async def write(self, batch: Sequence[Change]) -> Receipt:
            if len(self.changes) < 2 and len(sleeps) > 5:
                self._keep(batch[:2])
                raise PartlyWritten(2, SinkUnavailable("again"))
            if len(sleeps) < 7:
                raise SinkUnavailable("again")
            return await super().write(batch)

    one = Bench(sink := Slipping())
    sleeps = one.clock.sleeps
    await one.deliver()
    assert ordinals(sink) == [0, 1, 2, 3, 4]
    assert sleeps[6] == DELAY_SECONDS_MIN


async def test_a_change_that_is_refused_waits_longest() -> None:
    one, sink = bench(Reject(), Reject())
    await one.deliver()
    assert one.delays == [DELAY_SECONDS_MAX] * 2
    assert one.settled == [5]
    assert sink.batches == 1


@pytest.mark.parametrize("error", [ConfigError(["no such stream"]), PartlyWritten(2, ConfigError(["no such stream"]))])
async def test_an_error_that_a_person_must_mend_stops(error: Exception) -> None:
    class Wrong(Memory):
        async def write(self, batch: Sequence[Change]) -> Receipt:
            raise error

    one = Bench(Wrong())
    with pytest.raises(SubscriptionStopped, match="cache: no such stream") as caught:
        await one.deliver()
    assert isinstance(caught.value.__cause__, ConfigError)
    assert one.delays == [None]
    assert one.clock.sleeps == []
    assert one.settled == ([2] if isinstance(error, PartlyWritten) else [])


@pytest.mark.parametrize("error", [KeyError("stock"), TimeoutError(), SinkUnavailable("down"), HandlerError("bug")])
async def test_whatever_else_a_sink_raises_is_tried_again(error: Exception) -> None:
    class Once(Memory):
        async def write(self, batch: Sequence[Change]) -> Receipt:
            if not one.observer.failures:
                raise error
            return await super().write(batch)

    one = Bench(sink := Once())
    await one.deliver()
    assert (one.settled, ordinals(sink)) == ([5], [0, 1, 2, 3, 4])
    assert one.delays == [DELAY_SECONDS_MIN]


async def test_a_sink_that_cancels_itself_is_a_failure_and_not_the_end() -> None:
    class Cancelling(Memory):
        async def write(self, batch: Sequence[Change]) -> Receipt:
            if not one.observer.failures:
                raise asyncio.CancelledError
            return await super().write(batch)

    one = Bench(sink := Cancelling())
    await one.deliver()
    assert (one.settled, ordinals(sink)) == ([5], [0, 1, 2, 3, 4])
    assert isinstance(one.observer.failures[0].error, SinkError)


async def test_no_answer_in_time_is_a_failure() -> None:
    sink = Memory()
    sink.script(held := Hold())
    one = Bench(sink, timeout_seconds=0.02)
    await one.deliver()
    assert held.reached.is_set()
    assert (one.settled, ordinals(sink)) == ([5], [0, 1, 2, 3, 4])
    assert str(one.observer.failures[0].error) == "no answer in 0.02 s"


async def test_a_flush_without_an_answer_in_time_is_a_failure() -> None:
    class Stuck(Memory):
        async def flush(self) -> None:
            await super().flush()
            if self.flushes == 1:
                await asyncio.Event().wait()

    one = Bench(sink := Stuck(receipt=Receipt.ACCEPTED), timeout_seconds=0.02)
    async with asyncio.timeout(5):
        await one.deliver()
    assert (one.settled, ordinals(sink)) == ([5], [0, 1, 2, 3, 4] * 2)
    assert isinstance(one.observer.failures[0].error, SinkTimeout)


async def test_a_sink_that_times_itself_is_not_hurried() -> None:
    class Patient(Memory):
        times_itself = True

    sink = Patient()
    sink.script(held := Hold())
    one = Bench(sink, timeout_seconds=0.0)
    task = asyncio.create_task(one.deliver())
    await held.reached.wait()
    held.release.set()
    await task
    assert (one.settled, one.delays) == ([5], [])


async def test_accepted_is_settled_only_after_the_flush() -> None:
    class Lazy(Memory):
        async def flush(self) -> None:
            assert one.settled == []
            await super().flush()
            if self.flushes == 1:
                raise SinkUnavailable("gone before the flush")

    one = Bench(sink := Lazy(receipt=Receipt.ACCEPTED))
    await one.deliver()
    assert (one.settled, sink.flushes, ordinals(sink)) == ([5], 2, [0, 1, 2, 3, 4] * 2)


async def test_durable_needs_no_flush() -> None:
    one, sink = bench()
    await one.deliver()
    assert sink.flushes == 0


async def test_cancelled_from_outside_it_ends_and_settles_nothing() -> None:
    one, sink = bench(held := Hold())
    task = asyncio.create_task(one.deliver())
    await held.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (one.settled, one.delays, list(sink.changes)) == ([], [], [])


async def test_it_waits_by_the_clock_it_was_given() -> None:
    sink, clock, settled = Memory(), OwnedClock(), []
    sink.script(Unavailable())
    deliverer = Deliverer("cache", sink, clock, RecordingObserver(), 30.0)
    task = asyncio.create_task(deliverer.deliver(BATCH, settled.append))
    await clock.wait_for_sleeper()
    clock.advance(DELAY_SECONDS_MIN / 2)
    await ticks(20)
    assert not task.done()
    clock.advance(DELAY_SECONDS_MIN / 2)
    await task
    assert settled == [5]


async def test_opening_is_insisted_on() -> None:
    class Slow(Memory):
        opened = 0

        async def open(self) -> None:
            self.opened += 1
            if self.opened < 4:
                raise ConnectionRefusedError

    one = Bench(sink := Slow())
    await one.deliverer.open()
    assert (sink.opened, one.attempts, len(one.clock.sleeps)) == (4, [1, 2, 3], 3)


async def test_a_sink_that_cannot_ever_be_opened_stops() -> None:
    class Wrong(Memory):
        async def open(self) -> None:
            raise ConfigError(["url is wrong"])

    with pytest.raises(SubscriptionStopped, match="url is wrong"):
        await Bench(Wrong()).deliverer.open()


async def test_its_probes_are_reached_around_each_write() -> None:
    reached: list[str] = []
    for name in ("delivery.before_write", "delivery.after_write"):
        probes.arm(name, lambda name=name: reached.append(name))  # type: ignore[misc]
    one, _ = bench(Unavailable())
    await one.deliver()
    assert reached == ["delivery.before_write", "delivery.before_write", "delivery.after_write"]
