"""
What a watcher costs the application: pgbench's TPC-B at half of what the machine does, with it and without, by turns.

p95 is that of pgbench's own transactions, from the moment each was due. The watcher hears all four tables and calls a
function with each change; it shares the machine with the server and with pgbench. The ratio is with / without.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from figures import arguments, say_build, write

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.embedded.install import find_postgres

TABLES = ("pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history")
SCALE = 10
CLIENTS = 4
LOAD = 0.5
"""The share of the transactions a second that pgbench reaches by itself."""

SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "4GB"}
PROGRAM = f"""
from backend_watcher import Watcher

watcher = Watcher("bench")


@watcher.on(*{TABLES!r})
async def note(change):
    pass
"""
WAYS = {
    "logical": {},
    "outbox": {"WATCHER_SOURCE__KIND": "outbox"},
    "outbox_silent": {"WATCHER_SOURCE__KIND": "outbox", "WATCHER_SOURCE__OUTBOX_NOTIFY": "false"},
}
READY = {
    "logical": "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'",
    "outbox": "SELECT 1 FROM watcher.outbox_reader WHERE journal IS NOT NULL",
}


def pgbench(dsn: str, *arguments: str, cwd: str | None = None) -> str:
    """Run pgbench to its end; return what it says."""
    command = [str(find_postgres().program("pgbench")), *arguments, dsn]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout


def transactions_per_second(dsn: str, seconds: int) -> float:
    """Return what pgbench reaches when nothing holds it back."""
    said = pgbench(dsn, "-n", "-c", str(CLIENTS), "-j", "1", "-T", str(seconds))
    return next(float(line.split()[2]) for line in said.splitlines() if line.startswith("tps"))


def p95_ms(dsn: str, rate: float, seconds: int) -> float:
    """Return the 95th percentile of the transactions' latency at a steady rate."""
    with tempfile.TemporaryDirectory() as folder:
        pgbench(dsn, "-n", "-c", str(CLIENTS), "-j", "1", "-T", str(seconds), "-R", f"{rate:.0f}", "-l", cwd=folder)
        lines = [line.split() for log in Path(folder).iterdir() for line in log.read_text().splitlines()]
    # client, transaction, latency in microseconds, script, epoch, its microseconds, lag
    taken = sorted(int(line[2]) for line in lines)
    return taken[int(len(taken) * 0.95)] / 1000


@contextmanager
def watching(dsn: str, way: str, folder: Path) -> Iterator[None]:
    """Run a watcher that hears in one way; what it made at the source is gone afterwards."""
    environ = os.environ | {"WATCHER_SOURCE__DSN": dsn} | WAYS[way]
    command = [sys.executable, "-m", "backend_watcher"]
    (folder / "program.py").write_text(PROGRAM)
    with psycopg.connect(dsn, autocommit=True) as connection, (folder / "log").open("ab") as log:
        if way != "logical":
            subprocess.run(
                [*command, "outbox", "install", "program.py"], cwd=folder, env=environ, check=True, stdout=log
            )
        watcher = subprocess.Popen([*command, "run", "program.py"], cwd=folder, env=environ, stdout=log, stderr=log)
        try:
            while not connection.execute(READY[way.partition("_")[0]]).fetchone():
                time.sleep(0.1)
            yield
        finally:
            watcher.send_signal(signal.SIGTERM)
            watcher.wait()
        if way == "logical":
            connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
            connection.execute("DROP PUBLICATION watcher_bench")
        else:
            subprocess.run(
                [*command, "outbox", "remove", "program.py", "--yes"],
                cwd=folder,
                env=environ,
                check=True,
                stdout=log,
            )


def measure(seconds: int, rounds: int) -> list[dict[str, object]]:
    """Take each figure `rounds` times, by turns, and compare the medians."""
    found: dict[str, list[float]] = {"without": []} | {way: [] for way in WAYS}
    with EmbeddedPostgres(settings=SETTINGS) as server:
        pgbench(server.dsn, "-i", "-q", "-s", str(SCALE))
        top = transactions_per_second(server.dsn, seconds)
        for _ in range(rounds):
            found["without"].append(p95_ms(server.dsn, top * LOAD, seconds))
            for way in WAYS:
                with tempfile.TemporaryDirectory() as folder, watching(server.dsn, way, Path(folder)):
                    found[way].append(p95_ms(server.dsn, top * LOAD, seconds))
    without = statistics.median(found["without"])
    figures: list[dict[str, object]] = []
    for way in WAYS:
        value = statistics.median(found[way])
        about = f"p95 {value:.2f} ms at {top * LOAD:.0f} transactions a second; without a watcher {without:.2f} ms"
        print(f"{'source_p95_' + way:26} {value / without:10.2f} ratio    goal <= 1.10   ({about})")
        name, ratio = f"source_p95_{way}", round(value / without, 4)
        figures.append({"name": name, "value": ratio, "unit": "ratio", "reference": about, "target": 1.1})
    return figures


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    say_build()
    write(measure(options.seconds, options.rounds), options.json)


if __name__ == "__main__":
    main()
