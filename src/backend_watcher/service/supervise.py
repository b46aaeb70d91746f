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
from backend_watcher.contracts import Journal
from backend_watcher.delivery.subscription import Subscription
from backend_watcher.errors import ExitCode, WatcherError
from backend_watcher.postgres import preflight
from backend_watcher.service.build import Plan, build
from backend_watcher.service.config import Config, load_config
from backend_watcher.service.control import raise_if_faulty
from backend_watcher.service.deliveries import Deliveries
from backend_watcher.service.observe import Figures, describe
from backend_watcher.service.remote import RemoteControl
from backend_watcher.service.steering import steer
from backend_watcher.service.watcher import Watcher
from backend_watcher.threads import LoopThread

log = structlog.get_logger("watcher")

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
        capture = LoopThread("capture", lambda: LogicalSource(self._plan.settings, journal, figures).run())
        deliveries = Deliveries(self._plan.subscriptions, journal, SystemClock(), figures)
        control = RemoteControl(journal.path, lambda request: steer(journal, deliveries, request))
        state = "stopped"
        notes = asyncio.create_task(self._keep_notes(journal))
        try:
            await deliveries.start()
            await control.open()
            capture.start()
            log.info("watching", subscriptions=deliveries.names, tables=list(self._plan.settings.tables))
            await self._until_the_end(capture)
        except WatcherError as error:
            state = f"stopped: {describe(error)}"
            raise
        finally:
            # In the order of the street: nothing comes in any more, then what came is delivered.
            await control.close()
            await capture.stop()
            probes.reach("service.draining")
            log.info("draining")
            await deliveries.drain()
            log.info("stopped")
            notes.cancel()
            await figures.write_notes(journal, state)
            remove()
        return ExitCode.CLEAN

    async def _until_the_end(self, capture: LoopThread) -> None:
        """Wait for a signal, or for capture to end with an error."""
        stop = asyncio.create_task(self._stop.wait())
        ends: list[asyncio.Future[Any]] = [stop, capture.finished]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if capture.finished.done():
            capture.finished.result()

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
