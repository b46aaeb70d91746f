"""
What is looked at again and again while a scenario runs.

`AckSafety` holds the slot against the journal every 100 ms: PostgreSQL must not have been told to forget what is
not on the disk. `Memory` watches the resident memory of a process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import psycopg

from backend_watcher.errors import JournalBroken
from backend_watcher.events.position import parse_lsn
from backend_watcher.journal.view import SqliteJournalView

from .running import SLOT

GAP_SECONDS = 0.1


class Sampler:
    """Calls `look` every `gap_seconds` in a thread of its own until it is closed."""

    def __init__(self, gap_seconds: float = GAP_SECONDS) -> None:
        self._gap_seconds = gap_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: Exception | None = None
        self.samples = 0

    def look(self) -> None:
        """Take one sample."""
        raise NotImplementedError

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self._gap_seconds):
                self.look()
        except Exception as error:
            self._error = error


class AckSafety(Sampler):
    """`violations` counts the samples at which the slot was after the journal's durable end."""

    def __init__(self, dsn: str, journal: Path, *, slot: str = SLOT) -> None:
        super().__init__()
        self._dsn = dsn
        self._journal = journal
        self._slot = slot
        self._connection: psycopg.Connection | None = None
        self.violations = 0
        self.advanced = 0
        self._last = 0

    def look(self) -> None:
        confirmed = self._confirmed()
        if confirmed is None:
            return
        # The journal second: it only grows, so what is behind now was behind before.
        try:
            with SqliteJournalView(self._journal) as view:
                durable = view.state().durable_lsn
                known = view.identity() is not None
        except JournalBroken:
            return  # not made yet
        if known:
            self.samples += 1
            self.violations += confirmed > durable
            self.advanced += confirmed > self._last
            self._last = confirmed

    def _confirmed(self) -> int | None:
        query = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = %s"
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(self._dsn, autocommit=True, connect_timeout=5)
            row = self._connection.execute(query, [self._slot]).fetchone()
        except psycopg.OperationalError:
            self._connection = None
            return None  # the server is away
        return parse_lsn(row[0]) if row and row[0] else None

    def __exit__(self, kind: object, *rest: object) -> None:
        super().__exit__(kind, *rest)
        if self._connection is not None:
            self._connection.close()


class Memory(Sampler):
    """`rss_max` is the largest resident memory of the process that `pid` names, in bytes."""

    def __init__(self, pid: Callable[[], int]) -> None:
        super().__init__()
        self._pid = pid
        self.rss_max = 0

    def look(self) -> None:
        try:
            status = Path(f"/proc/{self._pid()}/status").read_text()
        except OSError:
            return  # it ended
        for line in status.splitlines():
            if line.startswith("VmRSS:"):
                self.samples += 1
                self.rss_max = max(self.rss_max, int(line.split()[1]) * 1024)
