"""
Keys that fail: held in the journal with everything that comes after them, tried again, and parked in the end.

The cursor moves on past what is held, and retention with it: one poisoned row holds up nothing but itself, also over
a restart. `held.py` decides who waits behind whom, `retry.py` when to try again and when to stop trying.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from backend_watcher import probes
from backend_watcher.contracts import Clock, HeldChange, HeldKey, Journal, Observer
from backend_watcher.delivery.gate import Draining, Gate
from backend_watcher.delivery.health import Health
from backend_watcher.delivery.held import Held, HeldKeys, Name
from backend_watcher.delivery.retry import Patience, Verdict, blames_sink, decide
from backend_watcher.errors import WatcherError, in_one_line
from backend_watcher.events.change import Change
from backend_watcher.events.position import START, Position

KEY_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of offering changes once: so many from the front are done, and the next one met `error`."""

    done: int
    error: BaseException | None


class Offer(Protocol):
    """Offers changes to the sink once; a change that a function skipped counts as done. Raises nothing."""

    async def __call__(self, changes: Sequence[Change]) -> Attempt:
        """Offer them."""
        ...


class Keeper:
    """Keeps the failing keys of one subscription. All of it runs in the subscription's event loop."""

    def __init__(
        self,
        subscription: str,
        journal: Journal,
        gate: Gate,
        clock: Clock,
        observer: Observer,
        patience: Patience,
        *,
        parked_max: int,
        batch: int,
        at_once: int,
        wall: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._subscription = subscription
        self._journal = journal
        self._gate = gate
        self._clock = clock
        self._observer = observer
        self._patience = patience
        self._parked_max = parked_max
        self._batch = batch
        self._at_once = asyncio.Semaphore(at_once)
        self._wall = wall
        self._draw = draw
        self._wake = asyncio.Event()
        self._offered: set[asyncio.Task[None]] = set()
        self._broken: BaseException | None = None
        self._discarding = asyncio.Lock()
        self._catching_up: Position | None = None
        self._noted = False
        self.held = HeldKeys()
        self.health = Health()

    @property
    def _notes(self) -> Journal:
        """The journal, to note something in that is not durable yet."""
        self._noted = True
        return self._journal

    # Taking up, and taking in

    async def load(self) -> None:
        """Take up what the journal has held since before."""
        keys = await self._journal.held_keys(self._subscription)
        newest = -1
        kept: dict[Name, Position] = {}
        while keys and (page := await self._journal.held_changes(self._subscription, after=newest)):
            newest = page[-1].number
            for change in [one.change for one in page if not one.change.replayed]:
                kept.update(dict.fromkeys(change.identities(), change.position))
        self.held = HeldKeys(newest + 1)
        self._catching_up = max((last for key in keys for last in key.keys.values()), default=None)
        for key in keys:
            if key.changes:
                self.held.put(self._taken_up(key, kept))
            else:
                # The last process ended between the two notes.
                self._notes.forget_key(self._subscription, key.number)
        self._gate.look_again()
        self._wake.set()

    def came_to(self, cursor: Position) -> None:
        """
        Note how far the subscription is. Held keys wait until it is past the newest change that was held at the start.

        Until then changes come again that are older than held ones; a truncate among them must not come after these.
        """
        if self._catching_up is not None and cursor >= self._catching_up:
            self._catching_up = None
            self._wake.set()

    def _taken_up(self, key: HeldKey, kept: Mapping[Name, Position]) -> Held:
        # The clock on the wall may have jumped: nobody waits longer for that than a first retry would have taken.
        wait = None if key.due_at is None else min(max(key.due_at - self._wall(), 0.0), self._patience.seconds_max)
        due = None if wait is None else self._clock.now() + wait
        # A row that nothing is kept of any more comes again like any other, from the cursor on.
        names = {name: kept.get(name, START) for name in key.keys}
        told = (key.attempts, key.first_at, key.last_at)
        return Held(key.number, key.table, key.key, names, *told, due, key.error, key.remedy, key.changes)

    def hold(self, change: Change, error: BaseException) -> None:
        """Hold the key of a change that failed for the first time. The change counts as settled from here on."""
        probes.reach("delivery.before_hold")
        draw = self._draw()
        decision = decide(error, 1, 0.0, draw, self._patience, outage=self.health.outage)
        now, wall = self._clock.now(), self._wall()
        parked = decision.verdict is Verdict.PARK
        held = Held(
            number=self.held.new_number(),
            table=change.table.full_name,
            key=key_text(change),
            names=dict.fromkeys(change.identities(), change.position),
            attempts=1,
            first_at=wall,
            last_at=wall,
            due=None if parked else now + decision.seconds,
            error=in_one_line(error),
            remedy=remedy_of(error),
            changes=1,
            delay=decision.seconds,
        )
        self.held.put(held)
        if not parked:
            self.health.failed(held.number)
        (number,) = self.held.take_numbers(1)
        self._notes.hold_changes(self._subscription, [HeldChange(held.number, number, change)], self._note(held))
        probes.reach("delivery.after_hold")
        self._tell(held)

    async def durable(self) -> None:
        """Return when what was held and let go so far is durable in the journal."""
        if self._noted:
            self._noted = False
            try:
                await self._journal.flush()
            except BaseException:
                self._noted = True
                raise

    def blocks(self, change: Change) -> bool:
        """Say whether a change belongs to a held key."""
        return bool(self.held.blocking(change))

    def join(self, change: Change) -> Change | None:
        """
        Put a change behind the held key it belongs to. Return what is to be delivered.

        That is the change itself where it belongs to none, and None where it counts as settled now.
        """
        blocking = self.held.blocking(change) if self.held else ()
        if not blocking:
            return change
        left = self.held.left_of(change)
        if left is None:
            return None
        if left is not change:
            return self.join(left)
        self._join(change, blocking)
        return None

    def _join(self, change: Change, blocking: Sequence[Held]) -> None:
        held, other = self.held.join(change, blocking)
        (number,) = self.held.take_numbers(1)
        if other is not None:
            self._notes.forget_key(self._subscription, other.number, into=held.number)
            self.health.forget(other.number)
            if held.due is None:
                self.health.forget(held.number)
            self._observer.released(self._subscription, other.number)
        # Nothing is due earlier for it, so nobody is woken: with many held keys that would cost a look at each.
        self._notes.hold_changes(self._subscription, [HeldChange(held.number, number, change)], self._note(held))
        self._observer.held(self._subscription, self._note(held))

    async def join_truncate(self, truncate: Change) -> None:
        """Let a truncate follow what is held of its table, as a delete of each of those rows."""
        for held in self.held.of_table(truncate.table.full_name):
            rows = await self._rows_of(held)
            for name in sorted(held.names.keys() & rows.keys()):
                if name[0] != truncate.table.full_name:
                    continue
                # It may come again after a restart.
                again = truncate.position <= held.names[name] and not truncate.replayed
                # Tried meanwhile with success, it owes nothing any more: the truncate itself is enough.
                if self.held.get(held.number) is held and not again:
                    self._join(rows[name].as_delete(truncate.transaction, truncate.ordinal), [held])

    async def _rows_of(self, held: Held) -> dict[Name, Change]:
        """Return the newest held change of each row of a held key."""
        rows: dict[Name, Change] = {}
        after = -1
        while page := await self._journal.held_changes(self._subscription, held.number, after=after):
            after = page[-1].number
            rows.update({one.change.identities()[-1]: one.change for one in page if one.change.identities()})
        return rows

    # Trying again

    def wake(self) -> None:
        """Look again: at what is due, and whether to drain."""
        self._wake.set()

    async def run(self, offer: Offer) -> None:
        """Try held keys when they are due, until drained: what is under way then still ends."""
        try:
            while not self._gate.draining:
                self._wake.clear()
                if self._broken is not None:
                    raise self._broken
                for held in self._due():
                    await self._at_once.acquire()
                    # What waited for its turn may have become part of another key.
                    if held.into is None and not held.busy and held.due is not None and not self._rests:
                        self._start(held, offer)
                    else:
                        self._at_once.release()
                await self._next()
            await asyncio.gather(*self._offered)
        finally:
            for task in self._offered:
                task.cancel()
            await asyncio.gather(*self._offered, return_exceptions=True)

    @property
    def catching_up(self) -> bool:
        """Say that the subscription is still behind what was held when it started."""
        return self._catching_up is not None

    @property
    def _rests(self) -> bool:
        """Say that nothing is to be tried now. Full, the subscription could not catch up."""
        return self._gate.paused or (self.catching_up and not self.full)

    def _due(self) -> list[Held]:
        return [] if self._rests else self.held.due(self._clock.now())

    async def _next(self) -> None:
        """Wait until the next key is due, or something changed."""
        due = None if self._rests else self.held.next_due()
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._wake.wait())]
        if due is not None:
            waits.append(asyncio.ensure_future(self._clock.sleep(max(due - self._clock.now(), 0.0))))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _start(self, held: Held, offer: Offer) -> None:
        held.busy += 1
        task = asyncio.create_task(self._try(held, offer), name=f"{self._subscription}: {held.key}")
        self._offered.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._offered.discard(task)
        self._at_once.release()
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            self._broken = task.exception()

    async def _try(self, held: Held, offer: Offer) -> None:
        """Offer what a key holds: the failing change alone, then the rest in batches."""
        try:
            limit = 1 if held.attempts else self._batch
            page = await self._journal.held_changes(self._subscription, held.number, limit=limit)
            if self._gate.paused:
                return
            attempt = await offer([one.change for one in page]) if page else Attempt(0, None)
        except Draining:
            return
        finally:
            held.root().busy -= 1
        self._after(held.root(), held, page, attempt)

    def _after(self, root: Held, tried: Held, page: Sequence[HeldChange], attempt: Attempt) -> None:
        done = [one.number for one in page[: attempt.done]]
        if done:
            probes.reach("delivery.before_let_go")
            self._notes.let_go(self._subscription, done)
            self.held.remove_changes(root, len(done))
            self._gate.look_again()
        if self.held.get(root.number) is not root:
            return  # discarded by a person meanwhile
        if not page and tried is root:
            self.held.remove_changes(root, root.changes)
        if not root.changes:
            self._release(root)
        elif tried is not root or root.due is None:
            return  # what it became part of has its own turn, or waits for a person
        elif attempt.error is not None:
            self._failed_again(root, attempt)
        else:
            root.attempts, root.delay = 0, 0.0
            self.held.plan(root, self._clock.now())

    def _failed_again(self, held: Held, attempt: Attempt) -> None:
        error = attempt.error
        assert error is not None
        if attempt.done:
            held.attempts, held.delay, held.first_at = 0, 0.0, self._wall()
        outage = self.health.outage
        if not outage and not blames_sink(error):
            held.attempts += 1
        decision = decide(error, held.attempts, held.delay, self._draw(), self._patience, outage=outage)
        held.last_at = self._wall()
        held.error, held.remedy = in_one_line(error), remedy_of(error)
        held.delay = decision.seconds
        if decision.verdict in (Verdict.PARK, Verdict.STOP, Verdict.PAUSE):
            # A key by itself neither stops nor pauses the others: it waits for the person they would wait for.
            self.held.plan(held, None)
            self.health.forget(held.number)
        else:
            self.held.plan(held, self._clock.now() + decision.seconds)
            if not blames_sink(error):
                self.health.failed(held.number)
        self._notes.hold_changes(self._subscription, [], self._note(held))
        self._tell(held)

    def _release(self, held: Held) -> None:
        self.held.release(held)
        self.health.forget(held.number)
        self._notes.forget_key(self._subscription, held.number)
        self._observer.released(self._subscription, held.number)
        self._gate.look_again()

    def succeeded(self) -> None:
        """Note that the sink took something: after an outage everybody who waits is tried soon."""
        if self.health.succeeded():
            now = self._clock.now()
            for held in self.held:
                if held.due is not None:
                    held.delay = 0.0
                    self.held.plan(held, min(held.due, now + self._draw()))
            self._wake.set()

    # What people do

    def redrive(self, number: int | None = None) -> int:
        """Try a parked key again now, or all of them; return how many. Raises KeyError."""
        chosen = [held for held in self.held if held.due is None] if number is None else [self._known(number)]
        for held in chosen:
            held.attempts, held.delay = 0, 0.0
            self.held.plan(held, self._clock.now())
            self._notes.hold_changes(self._subscription, [], self._note(held))
        self._wake.set()
        return len(chosen)

    async def discard(self, number: int, *, everything: bool) -> int:
        """
        Forget the failing change of a key, and try what waits behind it; or forget all of it.

        Returns how many changes were forgotten. Raises KeyError.
        """
        async with self._discarding:
            held = self._known(number)
            while held.busy and self._offered:
                await asyncio.wait(self._offered, return_when=asyncio.FIRST_COMPLETED)
            held = self._known(number)
            # Not tried while it is looked up.
            held.busy += 1
            try:
                doomed = await self._numbers_of(number) if everything else await self._first_of(number)
            finally:
                held.root().busy -= 1
        held = held.root()
        self._notes.let_go(self._subscription, doomed)
        self.held.remove_changes(held, len(doomed))
        self._gate.look_again()
        if held.changes:
            self.redrive(held.number)
        else:
            self._release(held)
        return len(doomed)

    async def _first_of(self, key_number: int) -> list[int]:
        page = await self._journal.held_changes(self._subscription, key_number, limit=1)
        return [one.number for one in page]

    async def _numbers_of(self, key_number: int) -> list[int]:
        numbers: list[int] = []
        while page := await self._journal.held_changes(self._subscription, key_number, after=max(numbers, default=-1)):
            numbers += [one.number for one in page]
        return numbers

    def _known(self, number: int) -> Held:
        held = self.held.get(number)
        if held is None:
            raise KeyError(number)
        return held

    # Room

    @property
    def full(self) -> bool:
        """Say that no more may be held: the subscription waits."""
        return self.held.changes >= self._parked_max

    async def room(self) -> None:
        """Return when one more change may be held. Raises Draining."""
        if not self.full:
            return
        what = f"{self.held.changes} changes are held; redrive or discard some of them"
        self._observer.subscription_state(self._subscription, "full", what)
        self._wake.set()
        await self._gate.until(lambda: not self.full)
        self._observer.subscription_state(self._subscription, "running", "")

    # Words

    def _note(self, held: Held) -> HeldKey:
        due_at = None if held.due is None else self._wall() + max(held.due - self._clock.now(), 0.0)
        return held.note(due_at)

    def _tell(self, held: Held) -> None:
        self._observer.held(self._subscription, self._note(held))
        if held.due is not None:
            # Not for what is parked: with many held keys each look at what is due costs.
            self._wake.set()


def key_text(change: Change) -> str:
    """Write a change's key for people, as JSON; shortened where it is very long."""
    named = dict(zip(change.table.primary_key, change.key, strict=False))
    text = msgspec.json.encode(named, enc_hook=str).decode() if named else str(change.position)
    return text if len(text) <= KEY_CHARACTERS_MAX else text[:KEY_CHARACTERS_MAX] + "…"


def remedy_of(error: BaseException) -> str:
    """Return what would mend it."""
    return error.remedy if isinstance(error, WatcherError) else "Mend the function, then redrive."
