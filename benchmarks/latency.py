"""Commit to handler at a steady rate: `load` commits, `measure` prints p50 and p99 in milliseconds as JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import tempfile
import time
from pathlib import Path

import psycopg

from backend_watcher import Change, Watcher
from backend_watcher.service.config import load_config
from backend_watcher.service.supervise import supervise

RATE = 500
WARM_UP = 500
KEYS = 100
POSTGRES_EPOCH_SECONDS = 946_684_800


def prepare(dsn: str) -> None:
    """Create the table that the load updates."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE beats (id int PRIMARY KEY, n bigint NOT NULL, note text)")
        connection.execute(f"INSERT INTO beats SELECT i, 0, 'note' FROM generate_series(0, {KEYS - 1}) AS i")


def load(dsn: str, seconds: float) -> None:
    """Commit one update after the other on a fixed timetable, once somebody streams."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        while not connection.execute("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'").fetchone():
            time.sleep(0.1)
        begun = time.perf_counter()
        for number in range(int(seconds * RATE) + WARM_UP):
            pause = begun + number / RATE - time.perf_counter()
            if pause > 0:
                time.sleep(pause)
            connection.execute("UPDATE beats SET n = n + 1 WHERE id = %s", (number % KEYS,))


async def measure(dsn: str, seconds: float) -> list[float]:
    """Return the milliseconds from commit to handler of each transaction after the warm-up, sorted."""
    expected = int(seconds * RATE) + WARM_UP
    samples: list[float] = []
    watcher = Watcher("latency", dsn=dsn)

    @watcher.on("beats", update=True)
    async def beat(change: Change) -> None:
        now = time.time() - POSTGRES_EPOCH_SECONDS
        samples.append((now - change.transaction.commit_micros / 1e6) * 1000)
        if len(samples) == expected:
            os.kill(os.getpid(), signal.SIGTERM)

    with tempfile.TemporaryDirectory() as folder:
        environ = {"WATCHER_JOURNAL__PATH": str(Path(folder) / "latency.journal")}
        await supervise(load_config(None, environ, watcher=watcher), watcher)
    return sorted(samples[WARM_UP:])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["load", "measure"])
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    if options.role == "load":
        load(options.dsn, options.seconds)
        return
    samples = asyncio.run(measure(options.dsn, options.seconds))
    figures = {"latency_p50_ms": samples[len(samples) // 2], "latency_p99_ms": samples[int(len(samples) * 0.99)]}
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
