"""The program of the delivery scenarios, run and steered: the shell beside it, its journal, how late things came."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import psycopg

from backend_watcher.contracts import HeldKey, JournalState
from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey
from backend_watcher.journal.view import SqliteJournalView

from .running import JOURNAL, SLOT, Running, environment
from .sampler import Sampler

DELIVERING = Path(__file__).parent / "delivering.py"
SHELL_SECONDS_MAX = 60.0
RSS_MIB_MAX = 300
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
SIX = tuple(f"sub_{letter}" for letter in "abcdef")
"""The subscriptions of `six` in the program."""


class Scene:
    """A folder, an environment, and the words to say in it."""

    def __init__(
        self, folder: Path, postgres: EmbeddedPostgres, scenario: str, valkey: EmbeddedValkey | None = None, **more: str
    ) -> None:
        self.folder = folder
        told = {"FAULTS_SCENARIO": scenario, "WATCHER_APP": str(DELIVERING)}
        self.environ: Mapping[str, str] = environment(folder, postgres, valkey, **told, **more)

    def run(self) -> Running:
        """Start the watcher."""
        return Running(self.folder, self.environ, program=DELIVERING)

    def shell(self, *words: str) -> str:
        """Run one command, and return what it said."""
        command = [sys.executable, "-m", "backend_watcher", *words]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=SHELL_SECONDS_MAX
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def status(self) -> dict[str, Any]:
        """Return what `watcher status` says."""
        return json.loads(self.shell("status", "--json"))

    def status_of(self, subscription: str) -> dict[str, Any]:
        """Return what it says of one subscription."""
        return next(one for one in self.status()["subscriptions"] if one["name"] == subscription)

    def turn_on(self, switch: str) -> None:
        """Turn on a switch of the program."""
        os.close(os.open(self.folder / switch, os.O_CREAT))

    def turn_off(self, switch: str) -> None:
        """Turn off a switch of the program."""
        (self.folder / switch).unlink()

    def seen(self, name: str) -> Path:
        """Return where a subscription writes down what it took."""
        return self.folder / f"seen_{name}"

    def count(self, name: str) -> int:
        """How many changes a subscription took."""
        return lines_in(self.seen(name))

    def held(self, name: str) -> list[HeldKey]:
        """Return the held keys of a subscription."""
        with SqliteJournalView(self.folder / JOURNAL) as view:
            return list(view.held_keys(name))

    def state(self) -> JournalState:
        """Return where the journal stands."""
        with SqliteJournalView(self.folder / JOURNAL) as view:
            return view.state()

    def journal_bytes(self) -> int:
        """How large the journal is, with its WAL."""
        path = self.folder / JOURNAL
        return sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*"))

    def lags(
        self, name: str, begin: float = 0.0, end: float = float("inf"), without: Collection[int] = ()
    ) -> list[float]:
        """Return how many seconds after their commits changes came between two moments, without those of some keys."""
        found = []
        for row in (self.folder / f"lag_{name}").read_text().split("\n")[:-1]:
            at, lag, key = row.split()
            if begin <= float(at) <= end and int(key) not in without:
                found.append(float(lag))
        return found


def lines_in(path: Path) -> int:
    """How many lines a file has."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def p99(values: list[float]) -> float:
    """Return what 99 of 100 are not above."""
    assert values, "nothing was measured"
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


class HeldWal(Sampler):
    """
    How much WAL is behind the slot, in bytes: not confirmed, and not to be removed.

    The server itself moves `restart_lsn` with what it logs of running transactions, every 15 seconds: it is behind.
    """

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self._connection = psycopg.connect(dsn, autocommit=True)
        self.unconfirmed: list[int] = []
        self.retained: list[int] = []
        self.written = 0
        self._first: int | None = None

    def look(self) -> None:
        query = (
            "SELECT pg_current_wal_lsn() - '0/0', pg_current_wal_lsn() - confirmed_flush_lsn,"
            " pg_current_wal_lsn() - restart_lsn FROM pg_replication_slots WHERE slot_name = %s"
        )
        now, unconfirmed, retained = map(int, self._connection.execute(query, [SLOT]).fetchone())
        self._first = now if self._first is None else self._first
        self.written = now - self._first
        self.unconfirmed.append(unconfirmed)
        self.retained.append(retained)
        self.samples += 1

    def __exit__(self, kind: object, *rest: object) -> None:
        super().__exit__(kind, *rest)
        self._connection.close()
