"""`watcher run` in a process of its own, and waiting for what it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import psycopg

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey

from .warm import Forked, warm

PROGRAM = Path(__file__).parent / "program.py"
NAME = "faults"
SLOT = f"watcher_{NAME}"
JOURNAL = f".watcher/{NAME}.journal"
START_SECONDS_MAX = 60.0
CATCH_UP_SECONDS_MAX = 120.0
END_SECONDS_MAX = 60.0
TIMED_EACH = 5
"""Of many starts one in so many is by itself, not forked, and its recovery is timed: imports belong to it."""
STREAMING = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND application_name LIKE 'backend_watcher%'"

_never = threading.Event()


def pause(seconds: float) -> None:
    """Let time pass for the processes under test."""
    _never.wait(seconds)


def until(condition: Callable[[], object], what: str = "it", seconds: float = CATCH_UP_SECONDS_MAX) -> float:
    """Return when `condition` holds, with how long it took; an AssertionError when it takes too long."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            raise AssertionError(f"{what} did not come true within {seconds:g} s")
        pause(0.02)
    return time.monotonic() - begun


def environment(
    folder: Path, postgres: EmbeddedPostgres | str, valkey: EmbeddedValkey | None = None, **more: str
) -> dict[str, str]:
    """Return the environment of `program.py`; a text instead of a server is a DSN, for example of a proxy."""
    return {
        **os.environ,
        "WATCHER_SOURCE__DSN": postgres if isinstance(postgres, str) else postgres.dsn,
        "FAULTS_REDIS": valkey.url if valkey is not None else "redis://127.0.0.1:1/0",
        "FAULTS_SINKS": "handler,cache" if valkey is not None else "handler",
        "FAULTS_SEEN": str(folder / "seen"),
        "FAULTS_LINES": str(folder / "lines"),
        **more,
    }


class Running:
    """
    `watcher run` in a process of its own; `probe` is what WATCHER_PROBES says. Its log is `folder/log`.

    With `often`, for tests that start it by the dozen, it is forked from a process that has imported it (`warm.py`).
    """

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        probe: str = "",
        *arguments: str,
        program: Path | str = PROGRAM,
        often: bool = False,
    ) -> None:
        self.folder = folder
        self._seen = [Path(environ[name]) for name in ("FAULTS_SEEN", "FAULTS_LINES") if name in environ]
        arguments = ("run", str(program), *arguments)
        environ = {**environ, "WATCHER_PROBES": probe}
        self.begun = time.monotonic()
        self.process: subprocess.Popen[bytes] | Forked
        if often:
            self.process = warm().start(*arguments, cwd=folder, env=environ, log=folder / "log")
            return
        command = [sys.executable, "-m", "backend_watcher", *arguments]
        with (folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def journal(self) -> Path:
        """Where its journal is."""
        return self.folder / JOURNAL

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self.process.poll() is not None

    def log(self) -> str:
        """Return what it and those before it in this folder have said."""
        return (self.folder / "log").read_text(errors="replace")

    def size(self) -> int:
        """Return how much its sinks have written."""
        return sum(path.stat().st_size for path in self._seen if path.exists())

    def wait_for_delivery(self) -> float:
        """Return when it has delivered something, or has ended by its probe; how many seconds since its start."""
        before = self.size()
        until(lambda: self.size() > before or self.ended, "delivering", START_SECONDS_MAX)
        return time.monotonic() - self.begun

    def wait_for_streaming(self, connection: psycopg.Connection) -> float:
        """Return when the server streams to it, or it has ended; how many seconds since its start."""
        until(lambda: self.ended or streams(connection), "streaming", START_SECONDS_MAX)
        return time.monotonic() - self.begun

    def send(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self, seconds: float = END_SECONDS_MAX) -> int:
        """Return its exit code."""
        return self.process.wait(seconds)

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it and return its exit code."""
        if not self.ended:
            self.send(number)
        return self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.ended:
            self.process.kill()
            self.process.wait()


def streams(connection: psycopg.Connection) -> bool:
    """Say whether the server streams to a watcher."""
    return connection.execute(STREAMING).fetchone() is not None
