"""A running watcher steered from the shell: parked, redriven, paused, replayed; and once more while none runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres
from cli.commands import environment

PROGRAM = """\
import os, pathlib
from backend_watcher import Change, Skip, Watcher

watcher = Watcher("steered")

@watcher.on("items", attempts=3, retry_seconds_max=0.2)
async def note(change: Change) -> None:
    if change.row["name"] == "skip":
        raise Skip("nobody needs it")
    if change.row["name"] == "poison" and not pathlib.Path("healed").exists():
        raise ValueError("poisoned")
    with open("seen", "a") as file:
        print(change.operation, change.row["id"], change.row["name"], change.replayed, file=file)
"""
SECONDS_MAX = 60


class Steered:
    """The program, its folder, and the shell beside it."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.folder = folder
        self.environ = environment(WATCHER_SOURCE__DSN=dsn)
        (folder / "program.py").write_text(PROGRAM)
        self._words = [sys.executable, "-m", "backend_watcher"]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            words = [*self._words, "run", "program.py"]
            self.process = subprocess.Popen(words, cwd=self.folder, env=self.environ, stdout=log, stderr=log)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS_MAX)

    def shell(self, *words: str) -> str:
        done = subprocess.run(
            [*self._words, *words], cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def held(self) -> list[tuple[str, int]]:
        keys = json.loads(self.shell("parked", "list", "--json"))["held"]
        return [(key["state"], key["changes"]) for key in keys]

    def seen(self) -> list[str]:
        path = self.folder / "seen"
        return path.read_text().splitlines() if path.exists() else []


def until(condition: Callable[[], bool], what: str) -> None:
    pause = threading.Event()
    for _ in range(SECONDS_MAX * 10):
        if condition():
            return
        pause.wait(0.1)
    raise AssertionError(f"not within {SECONDS_MAX} s: {what}")


@pytest.fixture
def dsn() -> Iterator[str]:
    with EmbeddedPostgres() as postgres:
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE items (id int PRIMARY KEY, name text)")
        yield postgres.dsn


@pytest.mark.slow
def test_a_subscription_is_steered_from_the_shell(dsn: str, tmp_path: Path) -> None:
    steered = Steered(tmp_path, dsn)
    steered.start()
    with psycopg.connect(dsn, autocommit=True) as connection:
        until(lambda: _streams(connection), "streaming")
        connection.execute("INSERT INTO items VALUES (1, 'a'), (2, 'poison'), (3, 'skip')")
        connection.execute("UPDATE items SET name = 'b' WHERE id = 2")
        connection.execute("UPDATE items SET name = 'b' WHERE id = 1")
        until(lambda: steered.held() == [("parked", 2)], "the poisoned key parked with the change behind it")
        assert sorted(steered.seen()) == ["insert 1 a False", "update 1 b False"]
        os.close(os.open(tmp_path / "healed", os.O_CREAT))
        steered.shell("parked", "redrive", "note", "--all")
        until(lambda: len(steered.seen()) == 4, "the parked changes delivered")
        assert steered.seen()[2:] == ["insert 2 poison False", "update 2 b False"]
        assert steered.held() == []

        steered.shell("pause", "note", "--reason", "lunch")
        connection.execute("INSERT INTO items VALUES (4, 'later')")
        assert steered.stop() == 0
        steered.start()
        until(lambda: _streams(connection), "streaming again")
        assert "paused (by" in steered.shell("status")
        assert len(steered.seen()) == 4
        steered.shell("resume", "note")
        until(lambda: len(steered.seen()) == 5, "resumed")

        steered.shell("replay", "note", "--from", "start", "--table", "items", "--key", "2")
        until(lambda: len(steered.seen()) == 7, "replayed")
        assert steered.seen()[4:] == ["insert 4 later False", "insert 2 poison True", "update 2 b True"]
        assert steered.stop() == 0
    # Nobody runs now: the journal itself is asked.
    assert "paused" in steered.shell("pause", "note")
    actions = [entry["action"] for entry in json.loads(steered.shell("audit", "--json"))["audit"]]
    assert actions == ["redrive", "pause", "resume", "replay", "pause"]


def _streams(connection: psycopg.Connection) -> bool:
    return bool(connection.execute("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'").fetchone())
