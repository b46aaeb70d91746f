"""
The replica beside a native subscription: both apply the same backlog to a database of their own, one after the other.

The backlog is that of `bench.py`, written before anything is read. Each side begins with an empty table and a slot that
stands before the backlog, and is timed until the last update is there. The ratio is native seconds / ours.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path

import backlog
import psycopg
from figures import arguments, say_build, write

from backend_watcher.embedded import EmbeddedPostgres

SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "8GB", "max_slot_wal_keep_size": "-1"}
LOOK_SECONDS = 0.05
DIGEST = "SELECT count(*), sum(hashtextextended(i::text, 0)) FROM public.items i"
PROGRAM = """
import os
from backend_watcher import Watcher
from backend_watcher.sinks import PostgresReplica

watcher = Watcher("bench")
watcher.to(PostgresReplica(os.environ["REPLICA_DSN"]), table="items", name="copy")
"""


def database(server: EmbeddedPostgres, name: str) -> str:
    """Make a database with the empty table; return its DSN."""
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    dsn = f"{server.dsn.rpartition('/')[0]}/{name}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(backlog.TABLE.encode())
    return dsn


def native(source: EmbeddedPostgres, target: EmbeddedPostgres, last: tuple[int, datetime]) -> float:
    """Let PostgreSQL's own subscription apply the backlog; return the seconds."""
    backlog.copy_slot(source.dsn, "native")
    dsn = database(target, "native")
    with psycopg.connect(dsn, autocommit=True) as connection:
        begun = time.perf_counter()
        connection.execute(
            f"CREATE SUBSCRIPTION native CONNECTION '{source.dsn}' PUBLICATION {backlog.PUBLICATION} "
            "WITH (create_slot = false, slot_name = 'native', copy_data = false)".encode()
        )
        wait_for(dsn, last)
        seconds = time.perf_counter() - begun
        connection.execute("DROP SUBSCRIPTION native")
    return seconds


def ours(source: EmbeddedPostgres, target: EmbeddedPostgres, last: tuple[int, datetime]) -> tuple[float, float, float]:
    """Let the watcher apply it; return the seconds, those of its CPU, and the peak of its memory in MB."""
    backlog.copy_slot(source.dsn, "ours")
    dsn = database(target, "ours")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program.py"
        program.write_text(PROGRAM)
        environ = os.environ | {
            "WATCHER_SOURCE__DSN": source.dsn,
            "WATCHER_SOURCE__SLOT": "ours",
            "WATCHER_SOURCE__PUBLICATION": backlog.PUBLICATION,
            "REPLICA_DSN": dsn,
        }
        command = [sys.executable, "-m", "backend_watcher", "run", str(program), "--adopt-slot"]
        begun = time.perf_counter()
        watcher = subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.DEVNULL)
        try:
            wait_for(dsn, last)
            seconds = time.perf_counter() - begun
        finally:
            watcher.send_signal(signal.SIGTERM)
            _, _, usage = os.wait4(watcher.pid, 0)
            watcher.returncode = 0
    memory = usage.ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)
    return seconds, usage.ru_utime + usage.ru_stime, memory


def wait_for(dsn: str, last: tuple[int, datetime]) -> None:
    """Return when the row of the last update is as it was left at the source."""
    pause = threading.Event()
    with psycopg.connect(dsn, autocommit=True) as connection:
        while connection.execute("SELECT updated_at FROM items WHERE id = %s", [last[0]]).fetchone() != (last[1],):
            pause.wait(LOOK_SECONDS)


def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    """Write the backlog, let both apply it, and compare what they made of it."""
    with EmbeddedPostgres(settings=SETTINGS) as source, EmbeddedPostgres(settings=SETTINGS) as target:
        backlog.write(source.dsn, options.rows, options.updates)
        with psycopg.connect(source.dsn) as connection:
            query = "SELECT id, updated_at FROM items ORDER BY updated_at DESC LIMIT 1"
            last = connection.execute(query).fetchone()
        reference = native(source, target, last)
        seconds, cpu_seconds, memory = ours(source, target, last)
        digests = set()
        for dsn in (source.dsn, *(f"{target.dsn.rpartition('/')[0]}/{name}" for name in ("native", "ours"))):
            with psycopg.connect(dsn) as connection:
                digests.add(connection.execute(DIGEST).fetchone())
        if len(digests) != 1:
            raise SystemExit(f"the replicas differ: {digests}")
    taken = f"{seconds:.2f} s, {cpu_seconds:.2f} s of CPU in the watcher"
    about = f"{taken}; a native subscription on the same backlog: {reference:.2f} s"
    print(f"{'replica':26} {reference / seconds:10.2f} ratio    goal >= 1   ({about})")
    print(f"{'replica_peak_memory_mb':26} {memory:10.2f} MB       goal <= 200")
    return [
        {"name": "replica", "value": round(reference / seconds, 4), "unit": "ratio", "reference": about, "target": 1.0},
        {"name": "replica_peak_memory_mb", "value": round(memory, 1), "unit": "MB", "reference": "", "target": 200.0},
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the one large transaction")
    parser.add_argument("--updates", type=int, default=200_000, help="transactions of one update each")
    options = parser.parse_args()
    say_build()
    write(measure(options), options.json)


if __name__ == "__main__":
    main()
