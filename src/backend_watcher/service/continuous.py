"""
Reads back what is delivered, while it is delivered: a thread for all subscriptions, beside those that deliver.

Each subscription that can be read back has a tap in its own thread, which chooses, and everything else here: what was
chosen is looked for in the sink, what seems wrong is looked at again, and where it is asked for all rows are compared,
slowly. Nothing of it can stop delivery, or make it wait: sinks are read over connections of their own, and what fails
here is said and tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

from backend_watcher.contracts import Journal, Sink
from backend_watcher.delivery.deliver import Taken
from backend_watcher.delivery.subscription import Subscription
from backend_watcher.errors import SinkError, WatcherError, in_one_line
from backend_watcher.journal.view import SqliteJournalView
from backend_watcher.reconcile import alarm, rounds, share
from backend_watcher.reconcile.readback import TICK_SECONDS, ReadBack, Tap
from backend_watcher.reconcile.sampling import LOOKS_SECONDS, Sample
from backend_watcher.service.config import Config
from backend_watcher.service.drifting import LOOK_SECONDS, DriftWatch
from backend_watcher.service.readable import Readable, read_back_per_second
from backend_watcher.service.scanning import Scanner
from backend_watcher.threads import LoopThread
from backend_watcher.verifiable import ProofObserver

log = structlog.get_logger("watcher")

AWAY_SECONDS = 10.0
"""Between two tries of a sink that does not answer."""

STOP_SECONDS_MAX = 2.0
"""How long a drain waits for this; what it had under way is only reading, and is left."""


class Continuous:
    """`know` the subscriptions, then `start`; `stop` and `know` again where there are others."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        observer: ProofObserver,
        *,
        looks_seconds: Sequence[float] = LOOKS_SECONDS,
        look_seconds: float = LOOK_SECONDS,
        tick_seconds: float = TICK_SECONDS,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._journal = journal
        self._observer = observer
        self._looks_seconds = looks_seconds
        self._look_seconds = look_seconds
        self._tick_seconds = tick_seconds
        self._now = now
        self._wall = wall
        self._readables: dict[str, Readable] = {}
        self._names: list[str] = []
        # Once it was opened a sink cannot be copied; settings may come again for the same one.
        self._pristine: dict[int, tuple[Sink, Sink]] = {}
        self._thread: LoopThread | None = None

    def know(self, subscriptions: Sequence[Subscription]) -> None:
        """Take these, before any of them that is new is opened. Not while it runs."""
        before, self._readables = self._readables, {}
        self._names = [one.name for one in subscriptions]
        for one in subscriptions:
            known = before.get(one.name)
            if known is not None and known.subscription is one:
                self._readables[one.name] = known
                continue
            per_second = read_back_per_second(one)
            if not (per_second or one.options.verify_every_seconds):
                continue
            pristine = self._copy_of(one)
            if pristine is not None:
                tap = Tap(per_second, now=self._now, wall=self._wall) if per_second else None
                self._readables[one.name] = Readable(one, pristine, tap)

    def _copy_of(self, subscription: Subscription) -> Sink | None:
        sink = subscription.sink
        if id(sink) not in self._pristine:
            try:
                self._pristine[id(sink)] = (sink, copy.deepcopy(sink))
            except Exception as error:  # noqa: BLE001 a sink of another package may hold anything
                log.warning(
                    "not read back: its sink cannot be copied", subscription=subscription.name, error=str(error)
                )
                return None
        return self._pristine[id(sink)][1]

    def taken(self, subscription: Subscription) -> Taken | None:
        """Return what is to be told of the batches that a subscription's sink took, if anything is."""
        readable = self._readables.get(subscription.name)
        return None if readable is None else readable.tap

    def start(self) -> None:
        """Begin; where there is nothing to read back, it ends by itself."""
        self._thread = LoopThread("watcher-proof", lambda: _guarded("all", self._run()))
        self._thread.start()

    async def stop(self) -> None:
        """End what runs. May be called twice."""
        thread, self._thread = self._thread, None
        if thread is not None:
            stopping = asyncio.ensure_future(thread.stop())
            _, late = await asyncio.wait([stopping], timeout=STOP_SECONDS_MAX)
            if late:
                log.warning("reading back does not end in time, and is left")

    async def _run(self) -> None:
        await _guarded("all", self._forget())
        with SqliteJournalView(self._config.journal.path) as view:
            async with asyncio.TaskGroup() as group:
                for one in self._readables.values():
                    if one.tap is not None:
                        group.create_task(_guarded(one.name, self._watch(one, one.tap, view)))
                scanned = [one for one in self._readables.values() if one.subscription.options.verify_every_seconds]
                if scanned:
                    source, told = self._config.source, self._observer
                    scanner = Scanner(scanned, source, view, self._journal, told, wall=self._wall)
                    group.create_task(_guarded("all", scanner.run()))

    async def _forget(self) -> None:
        """Forget what was known where it is no longer looked for: nobody would bring it up to date."""
        for name in self._names:
            readable = self._readables.get(name)
            stale = [] if readable is not None and readable.tap is not None else [share.note_name, alarm.note_name]
            if readable is None or not readable.subscription.options.verify_every_seconds:
                stale.append(rounds.note_name)
            for note_name in stale:
                if await self._journal.get_note(note_name(name)) is not None:
                    await self._journal.set_note(note_name(name), None)

    async def _watch(self, readable: Readable, tap: Tap, view: SqliteJournalView) -> None:
        told = self._observer
        back = ReadBack(readable.name, readable.reader(), tap, told, looks_seconds=self._looks_seconds, now=self._now)
        drift = DriftWatch(readable, self._config.source, view, self._journal, told, wall=self._wall)
        await drift.load()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._tick(readable.name, back))
                group.create_task(self._look(readable.name, back, drift))
        finally:
            with contextlib.suppress(SinkError):
                await back.close()

    async def _tick(self, name: str, back: ReadBack) -> None:
        away = False
        while True:
            try:
                await back.tick()
                away = False
            except SinkError as error:
                if not away:
                    log.warning("cannot be read back just now", subscription=name, error=in_one_line(error))
                away = True
                with contextlib.suppress(SinkError):
                    await back.close()
            await asyncio.sleep(AWAY_SECONDS if away else self._tick_seconds)

    async def _look(self, name: str, back: ReadBack, drift: DriftWatch) -> None:
        written, said = None, ""
        while True:
            try:
                text = share.dump(share.Visible(within=back.shares.within(self._now())))
                if text != written:
                    await self._journal.set_note(share.note_name(name), text)
                    written = text
                await self._look_again(back, drift)
                said = ""
            except WatcherError as error:
                if said != type(error).__name__:
                    log.warning("cannot look again just now", subscription=name, error=in_one_line(error))
                said = type(error).__name__
            await asyncio.sleep(self._look_seconds)

    async def _look_again(self, back: ReadBack, drift: DriftWatch) -> None:
        suspects: list[Sample] = [back.suspects.popleft() for _ in range(len(back.suspects))]
        if self._config.source.kind != "logical":
            return  # no stream says what happened meanwhile
        try:
            await drift.look(suspects)
        except WatcherError:
            back.suspects.extend(suspects)
            raise


async def _guarded(name: str, work: Coroutine[Any, Any, None]) -> None:
    """Let what fails here end by itself, and nothing else with it."""
    try:
        await work
    except Exception as error:  # noqa: BLE001 whatever it is, delivery goes on
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        log.error("no longer read back", subscription=name, error=in_one_line(error))  # noqa: TRY400 no traceback for people
