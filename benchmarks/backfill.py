"""
How fast rows that are already there come: a table is read by a backfill beside one plain COPY TO STDOUT of it.

`backfill` is from the first chunk read to the last one durable in the journal, `backfill_delivered` until a function
has had all rows, up to 1,000 at a time. The ratio is COPY's seconds / ours; COPY's bytes are thrown away.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import backlog
import psycopg
from figures import arguments, say_build, write

from backend_watcher.embedded import EmbeddedPostgres

SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "8GB"}
LOOK_SECONDS = 0.25
PROGRAM = """
import os
from backend_watcher import Watcher

watcher = Watcher("bench")
done = os.open(os.environ["BENCH_DONE"], os.O_WRONLY | os.O_CREAT, 0o600)
count = 0


@watcher.on("items", batch=1000, start="backfill")
async def take(changes):
    global count
    count += len(changes)
    os.pwrite(done, b"%d" % count, 0)
"""


def copy_seconds(dsn: str) -> float:
    """Return how long one COPY of the table takes whose bytes nobody keeps."""
    with psycopg.connect(dsn) as connection:
        begun = time.perf_counter()
        with connection.cursor() as cursor, cursor.copy("COPY items TO STDOUT") as copy:
            for _ in copy:
                pass
        return time.perf_counter() - begun


def job(command: list[str], folder: str, environ: dict[str, str]) -> dict[str, Any]:
    """Return the backfill as `watcher backfill list` shows it, {} before there is one."""
    listed = [*command, "backfill", "list", "--app", "program.py", "--json"]
    done = subprocess.run(listed, cwd=folder, env=environ, capture_output=True, check=False)
    found = json.loads(done.stdout)["backfills"] if done.returncode == 0 else []
    return found[0] if found else {}


def ours(dsn: str, rows: int) -> tuple[float, float, float]:
    """Return the seconds until all is in the journal, until all is delivered, and the peak of the memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "program.py").write_text(PROGRAM)
        done = Path(folder) / "done"
        environ = os.environ | {"WATCHER_SOURCE__DSN": dsn, "BENCH_DONE": str(done)}
        command = [sys.executable, "-m", "backend_watcher"]
        running = [*command, "run", "program.py"]
        watcher = subprocess.Popen(running, cwd=folder, env=environ, stdout=subprocess.DEVNULL)
        try:
            while not done.exists() or int(done.read_text() or 0) < rows:
                time.sleep(LOOK_SECONDS)
            ended = time.time()
            found = job(command, folder, environ)
            while found["state"] != "done":
                time.sleep(LOOK_SECONDS)
                found = job(command, folder, environ)
        finally:
            watcher.send_signal(signal.SIGTERM)
            _, _, usage = os.wait4(watcher.pid, 0)
            watcher.returncode = 0
    if found["rows"] != rows:
        raise SystemExit(f"{found['rows']} rows of {rows}: {found}")
    memory = usage.ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)
    return found["seconds"], ended - found["begun_at"], memory


def measure(rows: int) -> list[dict[str, object]]:
    """Fill a table, and let both read it."""
    with EmbeddedPostgres(settings=SETTINGS) as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(backlog.TABLE.encode())
            connection.execute(backlog.ROWS.format(rows=rows).encode())
            connection.execute("VACUUM ANALYZE items")
        # The faster of two: the first one reads what nobody has read before.
        reference = min(copy_seconds(server.dsn), copy_seconds(server.dsn))
        journaled, delivered, memory = ours(server.dsn, rows)
    figures: list[dict[str, object]] = []
    for name, seconds, target in (("backfill", journaled, 0.5), ("backfill_delivered", delivered, None)):
        about = f"{rows / seconds:,.0f} rows a second; one COPY TO STDOUT {rows / reference:,.0f}"
        goal = f"goal >= {target}" if target else ""
        print(f"{name:26} {reference / seconds:10.2f} ratio    {goal:14} ({about})")
        value = round(reference / seconds, 4)
        figures.append({"name": name, "value": value, "unit": "ratio", "reference": about, "target": target})
    print(f"{'backfill_peak_memory_mb':26} {memory:10.2f} MB       goal <= 200")
    value = round(memory, 1)
    figures.append({"name": "backfill_peak_memory_mb", "value": value, "unit": "MB", "reference": "", "target": 200.0})
    return figures


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    say_build()
    write(measure(options.rows), options.json)


if __name__ == "__main__":
    main()
