"""`kill -9` of `watcher run` again and again under load: nothing lost, per-key order kept, the cache equal."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey

from .workload import SCHEMA, Workload

KILLS = int(os.environ.get("FAULTS_KILLS", "50"))
PROGRAM = Path(__file__).parent / "program.py"
START_SECONDS_MAX = 60.0
CATCH_UP_SECONDS_MAX = 120.0
PROBES = [
    "",
    "capture.received=kill@{n}",
    "journal.before_commit=kill@{n}",
    "journal.after_commit=kill@{n}",
    "delivery.before_write=kill@{n}",
    "delivery.after_write=kill@{n}",
    "delivery.before_cursor=kill@{n}",
    "capture.before_feedback=kill@{n}",
]


class Running:
    """`watcher run` in a process of its own."""

    def __init__(self, folder: Path, environ: dict[str, str], probe: str = "") -> None:
        self._seen = folder / "seen"
        self._log = (folder / "log").open("ab")
        command = [sys.executable, "-m", "backend_watcher", "run", str(PROGRAM)]
        self.process = subprocess.Popen(
            command, cwd=folder, env={**environ, "WATCHER_PROBES": probe}, stdout=self._log, stderr=self._log
        )

    def size(self) -> int:
        return self._seen.stat().st_size if self._seen.exists() else 0

    def wait_for_delivery(self, pause: threading.Event) -> None:
        """Return when it has delivered something, or has ended by its probe."""
        before = self.size()
        for _ in range(int(START_SECONDS_MAX / 0.02)):
            if self.size() > before or self.process.poll() is not None:
                return
            pause.wait(0.02)
        raise AssertionError(f"nothing was delivered within {START_SECONDS_MAX:g} s")

    def end(self, number: int) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(60)
        self._log.close()
        return code


@pytest.fixture
def servers() -> Iterator[tuple[EmbeddedPostgres, EmbeddedValkey]]:
    with EmbeddedPostgres() as postgres, EmbeddedValkey() as valkey:
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            connection.execute(SCHEMA)
        yield postgres, valkey


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_under_load_nothing_is_lost(servers: tuple[EmbeddedPostgres, EmbeddedValkey], tmp_path: Path) -> None:
    postgres, valkey = servers
    seed = int(os.environ.get("FAULTS_SEED", "0")) or random.randrange(1, 1 << 30)
    print(f"seed {seed}, {KILLS} kills")
    dice, pause = random.Random(seed), threading.Event()
    environ = {
        **os.environ,
        "WATCHER_SOURCE__DSN": postgres.dsn,
        "FAULTS_REDIS": valkey.url,
        "FAULTS_SEEN": str(tmp_path / "seen"),
    }
    # The slot is made before the load begins, so that all of it is owed.
    first = Running(tmp_path, environ)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        _until(lambda: _streams(connection), pause)
        workload = Workload(postgres.dsn, seed)
        workload.start()
        first.wait_for_delivery(pause)
        first.end(signal.SIGKILL)
        for _ in range(1, KILLS):
            running = Running(tmp_path, environ, dice.choice(PROBES).format(n=dice.randint(1, 200)))
            running.wait_for_delivery(pause)
            pause.wait(dice.uniform(0, 0.5))
            running.end(signal.SIGKILL)
        workload.stop()
        last = Running(tmp_path, environ)
        ledger = connection.execute("SELECT operation, id, version FROM ledger ORDER BY n").fetchall()
        _until(lambda: _all_seen(tmp_path, len(ledger)), pause)
        assert last.end(signal.SIGTERM) == 0
        _check_deliveries(tmp_path, ledger)
        _check_cache(connection, valkey.url)


def _streams(connection: psycopg.Connection) -> bool:
    return bool(connection.execute("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'").fetchone())


def _until(condition, pause: threading.Event) -> None:
    for _ in range(int(CATCH_UP_SECONDS_MAX / 0.1)):
        if condition():
            return
        pause.wait(0.1)
    raise AssertionError(f"did not come true within {CATCH_UP_SECONDS_MAX:g} s")


def _lines(folder: Path) -> list[list[str]]:
    return [line.split() for line in (folder / "seen").read_text().splitlines()]


def _all_seen(folder: Path, expected: int) -> bool:
    return len({line[4] for line in _lines(folder)}) >= expected


def _check_deliveries(folder: Path, ledger: list[tuple[str, int, int]]) -> None:
    """Each committed change was seen, no other was, and of each key each process saw them in order."""
    owed, delivered = defaultdict(list), defaultdict(list)
    for operation, key, version in ledger:
        owed[key].append((operation, version))
    ids: set[str] = set()
    newest: dict[tuple[str, str], tuple[int, int]] = {}
    lines = _lines(folder)
    for pid, operation, key, version, event_id in lines:
        position = _position(event_id)
        assert position > newest.get((pid, key), (0, -1)), f"out of order: key {key} at {event_id}"
        newest[pid, key] = position
        if event_id not in ids:
            ids.add(event_id)
            delivered[int(key)].append((operation, int(version)))
    lost = sum(len(changes) for changes in owed.values()) - sum(len(changes) for changes in delivered.values())
    print(f"{len(ledger)} changes committed, {len(lines)} deliveries, lost {lost}")
    assert delivered == owed


def _position(event_id: str) -> tuple[int, int]:
    _, _, lsn, ordinal = event_id.split(":")
    high, low = lsn.split("/")
    return (int(high, 16) << 32) | int(low, 16), int(ordinal)


def _check_cache(connection: psycopg.Connection, url: str) -> None:
    with redis.Redis.from_url(url) as client:
        keys = sorted(key for key in client.scan_iter("item:*"))
        cached = {key.decode(): json.loads(value) for key, value in zip(keys, client.mget(keys), strict=True)}
    rows = connection.execute("SELECT id, version, note FROM items").fetchall()
    assert cached == {f"item:{key}": {"id": key, "version": version, "note": note} for key, version, note in rows}
    print(f"{len(rows)} cached rows equal")
