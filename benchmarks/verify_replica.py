"""
`watcher verify` of a replica beside `SELECT count(*)` of its table and beside comparing two dumps of it.

Both sides are filled with the rows of `bench.py`, a watcher runs between them. Then the table is verified as it is, and
once more after three things were done by hand: one value changed, one row deleted, one added. It must find these three.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import backlog
import psycopg
from figures import arguments, say_build, write

from backend_watcher.embedded import EmbeddedPostgres

SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "8GB", "max_slot_wal_keep_size": "-1"}
LOOK_SECONDS = 0.05
PROGRAM = """
import os
from backend_watcher import Watcher
from backend_watcher.sinks import PostgresReplica

watcher = Watcher("bench")
watcher.to(PostgresReplica(os.environ["REPLICA_DSN"]), table="items", name="copy")
"""
STREAMING = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND application_name LIKE 'backend_watcher%'"
BY_HAND = """
UPDATE items SET quantity = quantity + 1 WHERE id = {rows} / 3;
DELETE FROM items WHERE id = {rows} / 2;
INSERT INTO items SELECT {rows} + 7, quantity, name, price, code, details, created_at, updated_at, note, active
FROM items WHERE id = 1
"""


def fill(source: str, target: str, rows: int) -> None:
    """Put the same rows into both, and look at them as a server does in time."""
    with psycopg.connect(source, autocommit=True) as one, psycopg.connect(target, autocommit=True) as other:
        for connection in (one, other):
            connection.execute(backlog.TABLE.encode())
        one.execute(backlog.ROWS.format(rows=rows).encode())
        with (
            one.cursor().copy("COPY items TO STDOUT (FORMAT binary)") as out,
            other.cursor().copy("COPY items FROM STDIN (FORMAT binary)") as into,
        ):
            for data in out:
                into.write(data)
        for connection in (one, other):
            connection.execute("VACUUM ANALYZE items")


def seconds_of_count(dsn: str) -> float:
    """Count the rows in one process of the server; the faster time of two."""
    times = []
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET max_parallel_workers_per_gather = 0")
        for _ in range(2):
            begun = time.perf_counter()
            connection.execute("SELECT count(*) FROM items")
            times.append(time.perf_counter() - begun)
    return min(times)


def seconds_of_dumps(source: str, target: str) -> float:
    """Let both print all rows in the key's order, and compare what they print, as they print it."""
    begun = time.perf_counter()
    query = "COPY (SELECT * FROM items ORDER BY id) TO STDOUT"
    with psycopg.connect(source) as one, psycopg.connect(target) as other:
        for connection in (one, other):
            connection.execute("SET TimeZone = 'UTC'")
        with one.cursor().copy(query) as here, other.cursor().copy(query) as there:
            equal = all(bytes(a) == bytes(b) for a, b in zip(here, there, strict=True))
    assert equal
    return time.perf_counter() - begun


@contextmanager
def watching(folder: str, environ: dict[str, str], dsn: str) -> Iterator[None]:
    """Let a watcher run."""
    command = [sys.executable, "-m", "backend_watcher", "run", "program.py"]
    watcher = subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.DEVNULL)
    pause = threading.Event()
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while connection.execute(STREAMING).fetchone() is None:
                pause.wait(LOOK_SECONDS)
        yield
    finally:
        watcher.send_signal(signal.SIGTERM)
        watcher.wait()


def verified(folder: str, environ: dict[str, str]) -> dict[str, Any]:
    """Run the command, and return what it says of the table."""
    command = [sys.executable, "-m", "backend_watcher", "verify", "--app", "program.py", "--json"]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 5):
        raise SystemExit(f"verify ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    (found,) = json.loads(done.stdout)["tables"]
    return dict(found)


def measure(rows: int) -> list[dict[str, object]]:
    """Fill both, verify twice, and say how long it took beside the others."""
    with (
        EmbeddedPostgres(settings=SETTINGS) as source,
        EmbeddedPostgres(settings=SETTINGS) as target,
        tempfile.TemporaryDirectory() as folder,
    ):
        fill(source.dsn, target.dsn, rows)
        (Path(folder) / "program.py").write_text(PROGRAM)
        environ = os.environ | {"WATCHER_SOURCE__DSN": source.dsn, "REPLICA_DSN": target.dsn}
        count = seconds_of_count(source.dsn)
        dumps = seconds_of_dumps(source.dsn, target.dsn)
        with watching(folder, environ, source.dsn):
            equal = verified(folder, environ)
            with psycopg.connect(target.dsn, autocommit=True) as connection:
                connection.execute(BY_HAND.format(rows=rows).encode())
            drift = verified(folder, environ)
    found = sorted((one["kind"], one["entry"]) for one in drift["differences"])
    wanted = [("different", rows // 3), ("extra", rows + 7), ("missing", rows // 2)]
    if equal["verdict"] != "equal" or found != [(kind, json.dumps([str(key)])) for kind, key in wanted]:
        raise SystemExit(f"verify found {equal['verdict']}, then {found}")
    share = 100 * drift["read_again"] / rows
    seconds = equal["seconds"]
    about = f"{rows:,} rows: {seconds:.2f} s; count(*) on one side {count:.2f} s; two dumps compared {dumps:.2f} s"
    print(f"{'verify_replica':26} {rows / seconds:10.0f} rows/s   ({about})")
    print(f"{'verify_beside_dumps':26} {dumps / seconds:10.2f} ratio")
    print(f"{'verify_beside_count':26} {count / seconds:10.2f} ratio")
    print(
        f"{'verify_read_again':26} {share:10.4f} %        goal <= 0.1 ({drift['read_again']:,} rows for 3 differences)"
    )
    return [
        {
            "name": "verify_replica",
            "value": round(rows / seconds),
            "unit": "rows/s",
            "reference": about,
            "target": None,
        },
        {"name": "verify_beside_dumps", "value": round(dumps / seconds, 4), "unit": "ratio", "reference": about},
        {"name": "verify_beside_count", "value": round(count / seconds, 4), "unit": "ratio", "reference": about},
        {"name": "verify_read_again", "value": round(share, 5), "unit": "%", "reference": about, "target": 0.1},
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the table")
    options = parser.parse_args()
    say_build()
    write(measure(options.rows), options.json)


if __name__ == "__main__":
    main()
