"""
Starts the rooms in street order, answers signals, and stops them in reverse.

What must hold before the source is touched is looked at first: the preflight, and, at the very first start,
that every sink can be opened. Later a sink that is down stops nobody but its own subscription.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import structlog

from backend_watcher import probes
from backend_watcher.capture.logical import LogicalSource
from backend_watcher.capture.run import CaptureThread
from backend_watcher.contracts import Journal, Observer
from backend_watcher.delivery.deliver import SubscriptionStopped
from backend_watcher.delivery.run import SubscriptionLoop
from backend_watcher.delivery.subscription import Subscription
from backend_watcher.errors import ExitCode, WatcherError
from backend_watcher.postgres import preflight
from backend_watcher.service.build import Plan, build
from backend_watcher.service.config import Config, load_config
from backend_watcher.service.control import raise_if_faulty
from backend_watcher.service.observe import Figures, describe
from backend_watcher.service.watcher import Watcher

log = structlog.get_logger("watcher")

DRAIN_SECONDS_MAX = 10.0
NOTES_SECONDS = 1.0
SWITCH_SECONDS = 0.001
"""How long a thread may keep the interpreter while another waits: capture must not wait for handlers."""
COLLECT_OBJECTS = 50_000
"""New objects before the cycle collector looks: changes hold no cycles, and the default of 700 looks all the time."""


class SystemClock:
    """The Clock of a running process."""

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


async def supervise(config: Config, watcher: Watcher | None, *, adopt_slot: bool = False) -> int:
    """
    Run until SIGTERM or SIGINT, then drain; return the exit code.

    Raises ConfigError, PreflightFailed, SourceError, SafetyStop or JournalError, each with its remedy.
    """
    plan = build(config, watcher, adopt_slot=adopt_slot)
    settings = plan.settings
    report = await preflight.check(
        settings.dsn, slot=settings.slot, publication=settings.publication, tables=plan.wishes
    )
    for finding in report.warnings:
        log.warning("preflight", finding=finding.message, remedy=finding.remedy)
    raise_if_faulty(report)
    _tune_interpreter()
    probes.arm_from_environment()
    await plan.journal.open()
    try:
        if await plan.journal.identity() is None:
            await _try_sinks(plan.subscriptions)
        return await _Supervisor(plan).run()
    finally:
        await plan.journal.close()


def _tune_interpreter() -> None:
    """Set the interpreter up for a stream: many small objects that live briefly, and threads that must take turns."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()
    gc.set_threshold(COLLECT_OBJECTS, 50, 100)


def run_watcher(watcher: Watcher) -> None:
    """Run a Watcher from its own program with `watcher.toml` and the environment; exits as `watcher run` does."""
    import os

    try:
        code = asyncio.run(supervise(load_config(None, os.environ, watcher=watcher), watcher))
    except WatcherError as error:
        sys.stderr.write(f"{error.message}\nremedy: {error.remedy}\n")
        code = error.exit_code
    sys.exit(code)


async def _try_sinks(subscriptions: tuple[Subscription, ...]) -> None:
    """Open each sink once, so that a wrong address is told before anything is created."""
    for subscription in subscriptions:
        try:
            await subscription.sink.open()
        finally:
            await subscription.sink.close()


class _Supervisor:
    """One run of a plan whose journal is open."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._figures = Figures([subscription.name for subscription in plan.subscriptions])
        self._stop = asyncio.Event()

    async def run(self) -> int:
        remove = self._listen_to_signals()
        journal, figures = self._plan.journal, self._figures
        capture = CaptureThread(lambda: LogicalSource(self._plan.settings, journal, figures))
        loops = await self._loops(journal, figures)
        tasks = [asyncio.create_task(self._deliver(loop), name=name) for name, loop in loops.items()]
        notes = asyncio.create_task(self._keep_notes(journal))
        state = "stopped"
        capture.start()
        log.info("watching", subscriptions=sorted(loops), tables=list(self._plan.settings.tables))
        try:
            await self._until_the_end(capture)
        except WatcherError as error:
            state = f"stopped: {describe(error)}"
            raise
        finally:
            # In the order of the street: nothing comes in any more, then what came is delivered.
            await capture.stop()
            await self._drain(loops, tasks)
            notes.cancel()
            await figures.write_notes(journal, state)
            remove()
        return ExitCode.CLEAN

    async def _loops(self, journal: Journal, observer: Observer) -> dict[str, SubscriptionLoop]:
        cursors = await journal.cursors()
        loops = {}
        for subscription in self._plan.subscriptions:
            cursor = cursors.get(subscription.name)
            if cursor is None:
                # A new subscription begins with what is committed from now on.
                cursor = journal.last_position
                journal.save_cursor(subscription.name, cursor)
            loops[subscription.name] = SubscriptionLoop(subscription, journal, cursor, SystemClock(), observer)
        for name in sorted(cursors.keys() - loops.keys()):
            log.warning("a cursor without a subscription holds back retention", subscription=name)
        return loops

    async def _deliver(self, loop: SubscriptionLoop) -> None:
        try:
            await loop.run()
        except SubscriptionStopped as stopped:
            log.error("subscription stopped; the others go on", error=str(stopped))  # noqa: TRY400 no traceback for people

    async def _until_the_end(self, capture: CaptureThread) -> None:
        """Wait for a signal, or for capture to end with an error."""
        stop = asyncio.create_task(self._stop.wait())
        ends: list[asyncio.Future[Any]] = [stop, capture.finished]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if capture.finished.done():
            capture.finished.result()

    async def _drain(self, loops: dict[str, SubscriptionLoop], tasks: list[asyncio.Task[None]]) -> None:
        probes.reach("service.draining")
        log.info("draining")
        for loop in loops.values():
            loop.drain()
        _, late = await asyncio.wait(tasks, timeout=DRAIN_SECONDS_MAX)
        for task in late:
            log.warning("not drained in time; what was under way is delivered again", subscription=task.get_name())
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        log.info("stopped")

    async def _keep_notes(self, journal: Journal) -> None:
        while True:
            await self._figures.write_notes(journal, "running")
            await asyncio.sleep(NOTES_SECONDS)

    def _listen_to_signals(self) -> Callable[[], None]:
        """Stop at the first SIGTERM or SIGINT; the second ends the process as usual."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)

        def remove() -> None:
            for number in numbers:
                loop.remove_signal_handler(number)

        def stop() -> None:
            self._stop.set()
            remove()

        for number in numbers:
            loop.add_signal_handler(number, stop)
        return remove
