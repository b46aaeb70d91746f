"""
Starts the rooms in street order, answers signals, and stops them in reverse.

What must hold before the source is touched is looked at first: the preflight, and, at the very first start,
that every sink can be opened. Later a sink that is down stops nobody but its own subscription.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog

from backend_watcher import probes
from backend_watcher.capture.logical import LogicalSource
from backend_watcher.capture.prepare import LogicalSettings
from backend_watcher.contracts import Journal
from backend_watcher.delivery.subscription import Subscription
from backend_watcher.errors import ConfigError, ExitCode, JournalError, WatcherError, in_one_line
from backend_watcher.postgres.findings import Report
from backend_watcher.service import load
from backend_watcher.service.announce import Announcer
from backend_watcher.service.build import Plan, build
from backend_watcher.service.config import Config, load_config
from backend_watcher.service.continuous import Continuous
from backend_watcher.service.control import raise_if_faulty
from backend_watcher.service.deliveries import Deliveries
from backend_watcher.service.faces import Face, Inside, web_face
from backend_watcher.service.observe import Figures
from backend_watcher.service.reload import change
from backend_watcher.service.remote import RemoteControl
from backend_watcher.service.sources import look_before, other_source
from backend_watcher.service.standing import standing
from backend_watcher.service.steering import steer
from backend_watcher.service.watcher import Watcher
from backend_watcher.telemetry.health import Readiness, readiness
from backend_watcher.telemetry.metrics import Metrics
from backend_watcher.telemetry.several import Several
from backend_watcher.threads import LoopThread
from backend_watcher.version import __version__, is_compiled

log = structlog.get_logger("watcher")

NOTES_SECONDS = 1.0
LAST_NOTES_SECONDS_MAX = 2.0
POOLS = ("watcher-", "asyncio_")
"""What the threads are called that run functions."""
EXIT_SECONDS_MAX = 3.0
"""How long the interpreter may take to end when everything is closed."""
SWITCH_SECONDS = 0.001
"""How long a thread may keep the interpreter while another waits: capture must not wait for handlers."""
COLLECT_OBJECTS = 50_000
"""New objects before the cycle collector looks: changes hold no cycles, and the default of 700 looks all the time."""


ReadAgain = Callable[[], tuple[Config, Plan]]


class SystemClock:
    """The Clock of a running process."""

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


async def supervise(
    config: Config,
    watcher: Watcher | None,
    *,
    adopt_slot: bool = False,
    target: str | None = None,
    workers: int = 0,
    read_again: Callable[[], Config] | None = None,
) -> int:
    """
    Run until SIGTERM or SIGINT, then drain; return the exit code. `target` and `workers` are as for `build`.

    At SIGHUP the settings are taken from `read_again`; `reload.py` says what they may change.

    Raises ConfigError, PreflightFailed, SourceError, SafetyStop or JournalError, each with its remedy.
    """
    plan = build(config, watcher, adopt_slot=adopt_slot, target=target, workers=workers)

    def build_again() -> tuple[Config, Plan]:
        assert read_again is not None
        found = read_again()
        return found, build(found, watcher, adopt_slot=adopt_slot, target=target, workers=workers)

    report = await _preflight(plan)
    for finding in report.warnings:
        log.warning("preflight", finding=finding.message, remedy=finding.remedy)
    if report.faults:
        # Where another instance is just making what we miss, that is what is wrong.
        plan.journal.refuse_if_locked()
    raise_if_faulty(report)
    _tune_interpreter()
    probes.arm_from_environment()
    await plan.journal.open()
    try:
        if await plan.journal.identity() is None:
            await _try_sinks(plan.subscriptions)
        return await _Supervisor(config, plan, build_again if read_again is not None else None).run()
    finally:
        await plan.journal.close()


def _tune_interpreter() -> None:
    """Set the interpreter up for a stream: many small objects that live briefly, and threads that must take turns."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()
    gc.set_threshold(COLLECT_OBJECTS, 50, 100)


def run_watcher(watcher: Watcher) -> None:
    """Run a Watcher from its own program with `watcher.toml` and the environment; exits as `watcher run` does."""
    if load.in_worker:
        raise ConfigError(
            ["the program runs its watcher while it is loaded by a worker process"],
            remedy='Write `if __name__ == "__main__":` before `watcher.run()`.',
        )
    program = getattr(sys.modules["__main__"], "__file__", None)
    try:
        found = load_config(None, os.environ, watcher=watcher)
        code = asyncio.run(supervise(found, watcher, target=program))
    except WatcherError as error:
        sys.stderr.write(f"{error.message}\nremedy: {error.remedy}\n")
        code = error.exit_code
    # A program of the user's may go on after this: it is ended only where it would not end by itself.
    if any(thread.name.startswith(POOLS) and thread.is_alive() for thread in threading.enumerate()):
        exit_soon(code)
    sys.exit(code)


def exit_soon(code: int) -> None:
    """
    See that the process ends with this code, once all is drained and closed.

    A plain function that hangs keeps its thread, and the interpreter waits for those of pools, daemons or not.
    """
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]

    def leave() -> None:
        time.sleep(EXIT_SECONDS_MAX)
        alive = [thread.name for thread in others if thread.is_alive()]
        log.warning("ended in spite of functions that still run", threads=alive)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)

    threading.Thread(target=leave, name="watcher-exit", daemon=True).start()


async def _preflight(plan: Plan) -> Report:
    return await look_before(plan.settings, plan.wishes)


async def _try_sinks(subscriptions: tuple[Subscription, ...]) -> None:
    """Open each sink once, so that a wrong address is told before anything is created."""
    for subscription in subscriptions:
        try:
            await subscription.sink.open()
        finally:
            await subscription.sink.close()


class _Supervisor:
    """One run of a plan whose journal is open. `read_again` gives the plan that the settings ask for now."""

    def __init__(self, config: Config, plan: Plan, read_again: ReadAgain | None) -> None:
        self._config = config
        self._plan = plan
        self._read_again = read_again
        names = [subscription.name for subscription in plan.subscriptions]
        self._figures = Figures(names)
        self._metrics = Metrics(__version__, is_compiled())
        self._metrics.know(names)
        self._observer = Several([self._figures, self._metrics])
        self._continuous = Continuous(config, plan.journal, self._observer)
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()

    async def run(self) -> int:
        remove = self._listen_to_signals()
        journal, figures = self._plan.journal, self._figures
        self._capture = self._make_capture()
        self._continuous.know(self._plan.subscriptions)
        deliveries = Deliveries(journal, SystemClock(), self._observer, self._continuous.taken)
        control = RemoteControl(journal.path, lambda request: steer(journal, deliveries, request))
        announcer = Announcer(journal, self._plan.schema_functions, SystemClock())
        figures.on_schema_change.append(announcer.wake)
        announcing = LoopThread("watcher-schema", announcer.run)
        web = self._make_web()
        state = "stopped"
        notes = asyncio.create_task(self._keep_notes(journal))
        try:
            await deliveries.run_these(self._plan.subscriptions)
            await control.open()
            if web is not None:
                await web.start()
                log.info("answering over HTTP", host=self._config.web.host, port=self._config.web.port)
            announcing.start()
            self._continuous.start()
            self._capture.start()
            log.info("watching", subscriptions=deliveries.names, tables=list(self._plan.settings.tables))
            await self._until_the_end(deliveries)
        except WatcherError as error:
            state = f"stopped: {in_one_line(error)}"
            raise
        finally:
            # In the order of the street: nothing comes in any more, then what came is delivered.
            await control.close()
            if web is not None:
                await web.stop()
            await self._continuous.stop()
            await self._capture.stop()
            await announcing.stop()
            probes.reach("service.draining")
            log.info("draining")
            await deliveries.drain()
            log.info("stopped")
            notes.cancel()
            await self._last_notes(journal, state)
            remove()
        return ExitCode.CLEAN

    def _make_capture(self) -> LoopThread:
        settings, journal = self._plan.settings, self._plan.journal
        if isinstance(settings, LogicalSettings):
            return LoopThread("capture", lambda: LogicalSource(settings, journal, self._observer).run())
        return LoopThread("capture", lambda: other_source(settings, journal, self._observer).run())

    def _make_web(self) -> Face | None:
        """Return what answers over HTTP, None where nobody wants it. Raises ConfigError."""
        if not self._config.web.host:
            return None
        journal, figures = self._plan.journal, self._figures

        async def metrics(accept: str) -> tuple[bytes, str]:
            return self._metrics.text(accept, await standing(journal, list(figures.subscriptions)))

        def ready() -> Readiness:
            return readiness(figures.source, {name: one.state for name, one in figures.subscriptions.items()})

        return web_face(self._config.web, Inside(metrics, ready))

    async def _until_the_end(self, deliveries: Deliveries) -> None:
        """Wait for a signal, or for capture to end with an error; read the settings again when asked to."""
        while not self._stop.is_set():
            signals = [asyncio.create_task(event.wait()) for event in (self._stop, self._reload)]
            ends: list[asyncio.Future[Any]] = [*signals, self._capture.finished, deliveries.broken]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in signals:
                task.cancel()
            if deliveries.broken.done():
                deliveries.broken.result()
            if self._capture.finished.done():
                self._capture.finished.result()
                return
            if self._reload.is_set():
                self._reload.clear()
                await self._change(deliveries)

    async def _change(self, deliveries: Deliveries) -> None:
        """Go on with what the settings ask for now; with settings that cannot be run, go on as before."""
        if self._read_again is None:
            log.warning("the settings cannot be read again here; restart instead")
            return
        try:
            config, plan = self._read_again()
            changed = change(self._config, self._plan, config, plan)
            raise_if_faulty(await _preflight(changed.plan))
        except WatcherError as error:
            log.error("the settings are refused; going on as before", fault=error.message, remedy=error.remedy)  # noqa: TRY400 no traceback for people
            return
        if changed.left:
            log.warning("a restart is needed for some settings", settings=changed.left)
        kept = self._config
        self._config = replace(config, name=kept.name, source=kept.source, journal=kept.journal, web=kept.web)
        self._plan = changed.plan
        names = [subscription.name for subscription in changed.plan.subscriptions]
        self._figures.know(names)
        self._metrics.know(names)
        if changed.recapture:
            await self._capture.stop()
            self._capture = self._make_capture()
            self._capture.start()
        await self._continuous.stop()
        self._continuous.know(changed.plan.subscriptions)
        await deliveries.run_these(changed.plan.subscriptions)
        self._continuous.start()
        log.info("settings read again", subscriptions=deliveries.names, tables=list(changed.plan.settings.tables))

    async def _last_notes(self, journal: Journal, state: str) -> None:
        """Say how it ended, unless the journal cannot be written just now: a full disk must not keep us from ending."""
        try:
            async with asyncio.timeout(LAST_NOTES_SECONDS_MAX):
                await self._figures.write_notes(journal, state)
        except (TimeoutError, JournalError):
            log.warning("the journal could not be told how it ended")

    async def _keep_notes(self, journal: Journal) -> None:
        while True:
            await self._figures.write_notes(journal, "running")
            await asyncio.sleep(NOTES_SECONDS)

    def _listen_to_signals(self) -> Callable[[], None]:
        """Stop at the first SIGTERM or SIGINT; the second ends the process as usual."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)

        def remove() -> None:
            for number in (*numbers, signal.SIGHUP):
                loop.remove_signal_handler(number)

        def stop() -> None:
            self._stop.set()
            remove()

        for number in numbers:
            loop.add_signal_handler(number, stop)
        return remove
