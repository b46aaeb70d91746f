"""
The only file that awaits a sink: timeout, retries, receipts.

A batch is offered until it is settled. What the sink took of it is settled at once; the rest is offered again
after a delay that `retry.py` decides. Nothing is given up here: a batch ends settled, or the subscription stops.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

from backend_watcher import probes
from backend_watcher.contracts import Clock, Observer, Receipt, Sink
from backend_watcher.delivery.retry import decide, kind_of
from backend_watcher.errors import PartlyWritten, SinkError, SinkTimeout
from backend_watcher.events.change import Change


class SubscriptionStopped(Exception):
    """Delivery met an error that only a person can mend; `__cause__` is the error."""


class Deliverer:
    """Offers batches of one subscription to its sink."""

    def __init__(self, subscription: str, sink: Sink, clock: Clock, observer: Observer, timeout_seconds: float) -> None:
        self._subscription = subscription
        self._sink = sink
        self._clock = clock
        self._observer = observer
        self._timeout_seconds = timeout_seconds
        # A sink that calls a function per change times each call, not the batch.
        self._times_itself = bool(getattr(sink, "times_itself", False))

    async def open(self) -> None:
        """Open the sink, however long that takes. Raises SubscriptionStopped."""
        await self._insist(self._sink.open)

    async def deliver(self, batch: Sequence[Change], settle: Callable[[int], None]) -> None:
        """
        Offer the batch until all of it is settled; `settle` is told how many more are, from the front.

        Raises SubscriptionStopped where trying again is no use.
        """
        delay, attempt, done = 0.0, 0, 0
        while done < len(batch):
            rest = batch[done:] if done else batch
            begun = self._clock.now()
            try:
                await self._write(rest)
            except PartlyWritten as error:
                # Progress: what follows is a first attempt of another change.
                if error.settled:
                    self._took(rest[: error.settled], begun)
                    settle(error.settled)
                    done += error.settled
                    delay, attempt = 0.0, 0
                failure: BaseException = error.cause
            except Exception as error:  # noqa: BLE001 whatever a sink raises, the batch is not written
                failure = error
            else:
                probes.reach("delivery.after_write")
                self._took(rest, begun)
                settle(len(rest))
                return
            attempt += 1
            delay = await self._failed(failure, attempt, delay)

    def _took(self, changes: Sequence[Change], begun: float) -> None:
        seconds = self._clock.now() - begun
        micros = changes[-1].transaction.commit_micros
        self._observer.delivered(self._subscription, len(changes), seconds, micros)

    async def _write(self, batch: Sequence[Change]) -> None:
        """Offer the batch once. Returns when it is durable."""
        probes.reach("delivery.before_write")
        if self._times_itself:
            return await _uncancelled(self._write_durably(batch))
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await _uncancelled(self._write_durably(batch))
        except TimeoutError as error:
            raise SinkTimeout(f"no answer in {self._timeout_seconds:g} s") from error

    async def _write_durably(self, batch: Sequence[Change]) -> None:
        if await self._sink.write(batch) is Receipt.ACCEPTED:
            await self._sink.flush()

    async def _insist(self, action: Callable[[], Awaitable[None]]) -> None:
        delay, attempt = 0.0, 0
        while True:
            try:
                await _uncancelled(action())
            except Exception as error:  # noqa: BLE001 whatever a sink raises, it is not open
                attempt += 1
                delay = await self._failed(error, attempt, delay)
            else:
                return

    async def _failed(self, error: BaseException, attempt: int, delay: float) -> float:
        """Tell the observer, and wait as decided; return the delay."""
        decision = decide(kind_of(error), delay, random.random())
        self._observer.failed(self._subscription, error, attempt, decision.seconds)
        if decision.seconds is None:
            raise SubscriptionStopped(f"{self._subscription}: {error}") from error
        await self._clock.sleep(decision.seconds)
        return decision.seconds


async def _uncancelled(work: Awaitable[None]) -> None:
    """
    Await a sink. Raises SinkError where it lets out a cancellation of its own.

    A task that ends by a cancellation nobody asked for is taken for a good end, and the lane would be still.
    """
    try:
        await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise SinkError("the sink cancelled its own work") from error
