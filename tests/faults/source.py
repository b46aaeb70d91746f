"""What the scenarios of the source share: a first run that captured something, and a stop that names its reason."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import psycopg

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.errors import ExitCode

from .judge import distinct
from .running import Running, pause, until

INSERT = "INSERT INTO items SELECT n, 1, 'x' FROM generate_series(%s::int, %s::int) n"
NOTICED_SECONDS_MAX = 10.0
SLOW_MACHINE_SECONDS = 3.0
"""Added to a limit for what the process itself takes to end."""


def insert(connection: psycopg.Connection, first: int, last: int) -> None:
    """Insert items with these keys, in one transaction."""
    connection.execute(INSERT, [first, last])


def seen(running: Running) -> int:
    """How many different changes the handler has seen."""
    return distinct(running.folder / "seen")


def first_run(folder: Path, environ: dict[str, str], connection: psycopg.Connection, rows: int = 100) -> None:
    """Run a watcher until it has delivered some rows, and stop it cleanly."""
    with Running(folder, environ) as running:
        running.wait_for_streaming(connection)
        insert(connection, 1, rows)
        until(lambda: seen(running) >= rows or running.ended, "delivery")
        assert running.end() == 0, running.log()[-2000:]


def stopped(running: Running, *words: str, within: float = NOTICED_SECONDS_MAX, after: int = 0) -> float:
    """
    Wait until a watcher has stopped for the safety of the data and said why; return how long it took.

    `after` is how long the log was before it began to.
    """
    begun = time.monotonic()
    code = running.wait(within + SLOW_MACHINE_SECONDS)
    took = time.monotonic() - begun
    assert code == ExitCode.DATA_SAFETY, (code, running.log()[-3000:])
    log = running.log()[after:]
    for word in (*words, "remedy"):
        assert word in log, (word, log[-3000:])
    assert "Traceback" not in log
    return took


def refused(folder: Path, environ: dict[str, str], *words: str) -> None:
    """Start a watcher that has to stop before it delivers anything."""
    log = folder / "log"
    length = len(log.read_text(errors="replace")) if log.exists() else 0
    with Running(folder, environ) as running:
        before = seen(running)
        stopped(running, *words, within=30.0, after=length)
        assert seen(running) == before


def cold_copy(server: EmbeddedPostgres, to: Path) -> None:
    """Stop a server with a data folder of its own, copy the folder, and start it again."""
    folder = server.folder
    server.stop()
    copy_folder(folder, to)
    server.start()


def copy_folder(folder: Path, to: Path) -> None:
    """Copy the folder of a server that does not run, with the owners of its files."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to, symlinks=True)
    for path in (to, *to.rglob("*")):
        found = (folder / path.relative_to(to)).lstat()
        shutil.chown(path, found.st_uid, found.st_gid)


def wait_while(seconds: float, running: Running) -> None:
    """Let time pass while a watcher runs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not running.ended:
        pause(0.05)
