"""
The only file that awaits a sink: timeout, failures, receipts.

A batch is offered until nothing of it is left: what the sink took is settled, a change that failed is held with its
key, and what failed because of the sink is offered again. A batch that fails as a whole is halved until the change
that does not pass stands alone. Nothing is given up here: a change ends settled, held, or with the subscription.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, overload

from backend_watcher import probes
from backend_watcher.contracts import Clock, Observer, Receipt, TransactionalSink
from backend_watcher.delivery.coalesce import coalesce
from backend_watcher.delivery.gate import Gate
from backend_watcher.delivery.held import Name
from backend_watcher.delivery.parked import Attempt, Keeper
from backend_watcher.delivery.retry import SINK_SECONDS_MAX, Patience, Verdict, decide
from backend_watcher.delivery.subscription import Subscription
from backend_watcher.delivery.transform import transformed
from backend_watcher.errors import PartlyWritten, SinkError, SinkTimeout, SomeFailed
from backend_watcher.events.change import TRUNCATE, Change

Places = Sequence[int]
"""Which changes of a batch, by their index in it."""

Settle = Callable[[Places], None]

Taken = Callable[[Sequence[Change]], None]
"""Called with the changes of each batch that a sink took, as it got them; must not raise, nor wait, nor keep many."""

Result = TypeVar("Result")

INSIST = Patience(park=False, seconds_max=SINK_SECONDS_MAX)

NARROW = 16
"""So many changes are offered together, at least, after one of a larger batch failed."""

_ONE_CHANGE = (Verdict.HOLD, Verdict.PARK, Verdict.SKIP)
"""What is decided about one change: a batch that met such an error holds one that does not pass."""


class SubscriptionStopped(Exception):
    """Delivery met an error that only a person can mend; `__cause__` is the error."""


@dataclass(slots=True)
class _Result:
    """
    What one try did: the places that are done with, those that failed, and those it did not come to.

    With `unclear` the batch failed as a whole because of one change in it, and nobody knows which.
    """

    done: Places = ()
    failures: Mapping[int, BaseException] = field(default_factory=dict)
    untouched: Places = ()
    unclear: bool = False


class Deliverer:
    """Offers batches of one subscription to its sink."""

    def __init__(
        self,
        subscription: Subscription,
        keeper: Keeper,
        gate: Gate,
        clock: Clock,
        observer: Observer,
        pause: Callable[[BaseException], Awaitable[None]],
        taken: Taken | None = None,
    ) -> None:
        self._name = subscription.name
        self._sink = subscription.sink
        self._route = subscription.route
        self._transforms = subscription.transforms
        self._options = subscription.options
        self._patience = subscription.options.patience
        self._keeper = keeper
        self._gate = gate
        self._clock = clock
        self._observer = observer
        self._pause = pause
        self._taken = taken
        self._comes_again = True
        self._transactional = self._sink if isinstance(self._sink, TransactionalSink) else None
        # A sink that times each change by itself is not timed by the batch.
        self._times_itself = bool(getattr(subscription.sink, "times_itself", False))
        # Most subscriptions deliver what was captured, as it is.
        self._plain = not (self._transforms or self._route.has_predicates or self._options.coalesce)

    async def open(self) -> None:
        """Open the sink, however long that takes. Raises SubscriptionStopped, Draining."""
        await self._insist(self._sink.open)

    async def _insist(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Ask something of the sink until it succeeds."""
        delay, attempt = 0.0, 0
        while True:
            await self._gate.passed()
            try:
                return await _uncancelled(work())
            except Exception as error:  # noqa: BLE001 whatever a sink raises, it is not done
                attempt += 1
                if not await self._is_final(error):
                    delay = await self._again(error, attempt, delay)

    async def deliver(self, batch: Sequence[Change], settle: Settle) -> None:
        """
        Offer the batch until all of it is settled; `settle` is told which changes are.

        Raises SubscriptionStopped where trying again is no use, and Draining where there is no time left to.
        """
        pending = deque(self._parts(batch, await self._settle_taken(batch, settle)))
        told: set[int] = set()
        width = len(batch)
        delay, attempt = 0.0, 0
        while pending:
            await self._gate.passed()
            places = self._next(batch, pending, width)
            if self._keeper.held:
                await self._keeper.room()
                batch, places, rest = self._without_held(batch, places, settle)
                if rest:
                    pending.appendleft(rest)
            if not places:
                continue
            if self._keeper.held and batch[places[0]].code == TRUNCATE:
                await self._tell_held(batch, places[0], told)
            result = await self._offer(batch, places)
            if result.done:
                settle(result.done)
                delay, attempt = 0.0, 0
            if result.unclear:
                middle = len(places) // 2
                pending.extendleft([places[middle:], places[:middle]])
                continue
            again, reason = await self._judge(batch, result.failures, settle)
            # Each that fails costs a look at all that is offered with it: where many do, less is offered at once.
            one_failed = bool(result.failures) and not again
            width = max(NARROW, min(width, len(places)) // 2) if one_failed else min(2 * width, len(batch))
            if again or result.untouched:
                # Together: what was not tried must not overtake what is to be tried again.
                pending.appendleft(sorted([*again, *result.untouched]) if again else result.untouched)
            if reason is not None:
                attempt += 1
                delay = await self._again(reason, attempt, delay)

    async def offer_once(self, changes: Sequence[Change]) -> Attempt:
        """Offer changes of a held key: say how many from the front are done, and what stopped the next one."""
        await self._gate.passed()
        result = await self._offer(changes, range(len(changes)), late=True)
        if result.unclear:
            return await self.offer_once(changes[: len(changes) // 2])
        finished = set(result.done)
        done = 0
        while done < len(changes):
            error = result.failures.get(done)
            if error is None and done in finished:
                done += 1
            elif error is not None and self._verdict(error) is Verdict.SKIP:
                self._skip(changes[done], error)
                done += 1
            else:
                # Coalesced, a later one may fail before the first is tried: that is no progress, and has a reason.
                reason = error if done or error is not None else next(iter(result.failures.values()), None)
                return Attempt(done, reason)
        return Attempt(done, None)

    async def _settle_taken(self, batch: Sequence[Change], settle: Settle) -> int:
        """
        Settle the first changes, which a sink with a position is past; return how many. After a start they come again.

        They were written, or held. They must not be held again now: nobody could tell that they were written.
        """
        if self._transactional is None or not self._comes_again or batch[0].replayed:
            return 0
        sink, stream = self._transactional, batch[0].transaction.stream
        position = await self._insist(lambda: sink.position_of(stream))
        self._comes_again = batch[-1].position <= position
        count = bisect_right(batch, position, key=lambda change: change.position)
        if count:
            settle(range(count))
        return count

    def _parts(self, batch: Sequence[Change], begin: int) -> list[Places]:
        """Divide a batch at its truncates: what is held before one must know of it."""
        everything = range(begin, len(batch))
        # In several lanes it is alone already; whole transactions are divided only while something is held.
        if (
            self._options.concurrency > 1
            or self._options.whole_transactions
            or not any(change.code == TRUNCATE for change in batch)
        ):
            return [everything] if everything else []
        parts: list[Places] = []
        for place in everything:
            if batch[place].code == TRUNCATE:
                parts += [range(begin, place), range(place, place + 1)]
                begin = place + 1
        return [part for part in [*parts, range(begin, len(batch))] if part]

    def _next(self, batch: Sequence[Change], pending: deque[Places], most: int) -> Places:
        """Take the next places, so many at most; while something is held, up to a truncate, or it alone."""
        places = _next(pending, most)
        if not (self._keeper.held and self._options.whole_transactions):
            return places
        first = next((number for number, place in enumerate(places) if batch[place].code == TRUNCATE), len(places))
        count = max(first, 1)
        if count < len(places):
            pending.appendleft(places[count:])
        return places[:count]

    def _without_held(
        self, batch: Sequence[Change], places: Places, settle: Settle
    ) -> tuple[Sequence[Change], Places, Places]:
        """
        Put changes of held keys behind these.

        Return the batch with what is left of its changes, those to offer now, and those to look at again after them.
        """
        reduced: dict[int, Change] = {}
        joined: list[int] = []
        free: list[int] = []
        rest: Places = ()
        for number, place in enumerate(places):
            change = batch[place]
            if not self._keeper.blocks(change):
                free.append(place)
                continue
            # What ties a second key to a held one must not join before what is ahead of it on that key.
            if self._keeper.full or (free and change.key_changed()):
                rest = places[number:]
                break
            left = self._keeper.join(change)
            if left is None:
                joined.append(place)
                continue
            reduced[place] = left
            free.append(place)
        if joined:
            settle(joined)
        if reduced:
            # The journal shares its changes with other readers.
            batch = [reduced.get(place, change) for place, change in enumerate(batch)]
        return batch, (free if joined or rest else places), rest

    async def _tell_held(self, batch: Sequence[Change], place: int, told: set[int]) -> None:
        """Let a truncate follow what is held, once."""
        if place not in told and not self._drops(batch[place]):
            told.add(place)
            await self._keeper.join_truncate(batch[place])

    def _drops(self, change: Change) -> bool:
        """Say that a change does not get as far as the sink."""
        try:
            return transformed(self._route, self._transforms, change) is None
        except Exception:  # noqa: BLE001 a user's function; it is met again when the change is offered
            return True

    # One try

    async def _offer(self, batch: Sequence[Change], places: Places, *, late: bool = False) -> _Result:
        """Offer changes once; `late` are those of a held key."""
        changes, stands_for, bad = self._prepare(batch, places)
        if not changes:
            return self._result(places, (), bad, bad)
        begun = self._clock.now()
        try:
            await self._write(changes, late)
        except PartlyWritten as error:
            self._took(changes[: error.settled], begun)
            # All of those it stands for: the oldest is held, and the others wait behind it.
            failed = dict.fromkeys(stands_for[error.settled], error.cause)
            return self._result(places, stands_for[error.settled :], failed, bad)
        except SomeFailed as error:
            self._took([change for n, change in enumerate(changes) if n not in error.failures], begun)
            failures = {place: cause for n, cause in error.failures.items() for place in stands_for[n]}
            return self._result(places, [stands_for[n] for n in error.failures], failures, bad)
        except Exception as error:  # noqa: BLE001 whatever a sink raises, the batch is not written
            if len(places) > 1 and self._verdict(error) in _ONE_CHANGE:
                return _Result(unclear=True)
            return _Result(failures={places[0]: error}, untouched=places[1:])
        probes.reach("delivery.after_write")
        self._took(changes, begun)
        return self._result(places, (), bad, bad)

    def _prepare(
        self, batch: Sequence[Change], places: Places
    ) -> tuple[Sequence[Change], Sequence[Sequence[int]], dict[int, BaseException]]:
        """
        Make what the sink is to get: the changes, for each the places it stands for, and what failed at a place.

        Stops before the first change that a predicate or a transform fails on. What is dropped stands for nothing.
        """
        if self._plain:
            changes = batch if len(places) == len(batch) else [batch[place] for place in places]
            return changes, _Singles(places), {}
        made: list[Change] = []
        at: list[int] = []
        bad: dict[int, BaseException] = {}
        for place in places:
            try:
                change = transformed(self._route, self._transforms, batch[place])
            except Exception as error:  # noqa: BLE001 a user's function
                bad[place] = error
                break
            if change is not None:
                made.append(change)
                at.append(place)
        if not self._options.coalesce:
            return made, _Singles(at), bad
        left, groups = coalesce(made)
        return left, [[at[n] for n in group] for group in groups], bad

    @staticmethod
    def _result(
        places: Places,
        unwritten: Sequence[Sequence[int]],
        failures: Mapping[int, BaseException],
        bad: Mapping[int, BaseException],
    ) -> _Result:
        """Say what is done: all that was prepared, which ends at `bad`, but what the `unwritten` changes stand for."""
        if not failures:
            return _Result(places)
        end = min(bad, default=places[-1] + 1)
        owed = {place for group in unwritten for place in group} | failures.keys()
        done = [place for place in places if place < end and place not in owed]
        left = [place for place in places if (place >= end or place in owed) and place not in failures]
        return _Result(done, failures, left)

    def _took(self, changes: Sequence[Change], begun: float) -> None:
        if not changes:
            return
        self._keeper.succeeded()
        micros = changes[-1].transaction.commit_micros
        self._observer.delivered(self._name, len(changes), self._clock.now() - begun, micros)
        if self._taken is not None:
            self._taken(changes)

    async def _write(self, batch: Sequence[Change], late: bool) -> None:
        """Offer the batch once. Returns when it is durable."""
        if self._transactional is not None:
            # The sink's position passes what is held: only the journal will know of it then.
            await self._keeper.durable()
        probes.reach("delivery.before_write")
        if self._times_itself:
            return await _uncancelled(self._write_durably(batch, late))
        try:
            async with asyncio.timeout(self._options.timeout_seconds):
                return await _uncancelled(self._write_durably(batch, late))
        except TimeoutError as error:
            raise SinkTimeout(f"no answer in {self._options.timeout_seconds:g} s") from error

    async def _write_durably(self, batch: Sequence[Change], late: bool) -> None:
        if late and self._transactional is not None:
            receipt = await self._transactional.write_late(batch)
        else:
            receipt = await self._sink.write(batch)
        if receipt is Receipt.ACCEPTED:
            await self._sink.flush()

    # What becomes of what failed

    def _verdict(self, error: BaseException) -> Verdict:
        return decide(error, 1, 0.0, 0.0, self._patience, outage=self._keeper.health.outage).verdict

    async def _judge(
        self, batch: Sequence[Change], failures: Mapping[int, BaseException], settle: Settle
    ) -> tuple[list[int], BaseException | None]:
        """Hold what failed by itself; return what is to be offered again, with the reason if that is to wait first."""
        again: list[int] = []
        waiting: set[Name] = set()
        reason: BaseException | None = None
        for place in sorted(failures):
            change, error = batch[place], failures[place]
            names = change.identities()
            if not waiting.isdisjoint(names):
                # Held, it would be taken for the newest of its key, and what waits before it for done.
                again.append(place)
                waiting.update(names)
                continue
            verdict = self._verdict(error)
            if change.code == TRUNCATE and verdict in (Verdict.HOLD, Verdict.PARK):
                # It concerns every key of its table: there is nobody who could go on without it.
                verdict = Verdict.AGAIN
            if self._keeper.blocks(change):
                await self._keeper.room()
            if self._keeper.join(change) is None:
                settle([place])
            elif verdict is Verdict.SKIP:
                self._skip(change, error)
                settle([place])
            elif verdict in (Verdict.HOLD, Verdict.PARK):
                await self._keeper.room()
                self._keeper.hold(change, error)
                settle([place])
            else:
                again.append(place)
                waiting.update(names)
                if not await self._is_final(error):
                    reason = error
        return again, reason

    def _skip(self, change: Change, error: BaseException) -> None:
        self._observer.skipped(self._name, change.position, str(error))

    async def _is_final(self, error: BaseException) -> bool:
        """Stop, or pause and wait for a person, where that is what an error asks for."""
        verdict = self._verdict(error)
        if verdict is Verdict.STOP:
            self._observer.failed(self._name, error, 1, None)
            self._observer.subscription_state(self._name, "stopped", str(error))
            raise SubscriptionStopped(f"{self._name}: {error}") from error
        if verdict is Verdict.PAUSE:
            self._observer.failed(self._name, error, 1, None)
            await self._pause(error)
            return True
        return False

    async def _again(self, error: BaseException, attempt: int, delay: float) -> float:
        """Tell the observer, and wait as decided; return the delay. Raises Draining."""
        decision = decide(error, attempt, delay, random.random(), INSIST)
        self._observer.failed(self._name, error, attempt, decision.seconds)
        await self._gate.sleep(decision.seconds)
        return decision.seconds


def _next(pending: deque[Places], most: int) -> Places:
    """Take the next places, so many at most."""
    places = pending.popleft()
    if len(places) > most:
        pending.appendleft(places[most:])
    return places[:most]


class _Singles(Sequence[Sequence[int]]):
    """Each place by itself, without a list for each."""

    __slots__ = ("_places",)

    def __init__(self, places: Places) -> None:
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Sequence[int]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sequence[int]]: ...
    def __getitem__(self, index: int | slice) -> Sequence[int] | Sequence[Sequence[int]]:
        if isinstance(index, slice):
            return _Singles(self._places[index])
        return (self._places[index],)


async def _uncancelled(work: Awaitable[Result]) -> Result:
    """
    Await a sink. Raises SinkError where it lets out a cancellation of its own.

    A task that ends by a cancellation nobody asked for is taken for a good end, and the lane would be still.
    """
    try:
        return await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise SinkError("the sink cancelled its own work") from error
