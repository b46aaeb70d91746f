"""
What `--workers` brings to a function that computes: the same backlog with 0 and with N processes, in one run.

Each change costs the function about a millisecond of pure Python. Prints the throughput of both and their ratio;
PostgreSQL shares the cores.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import psycopg
from figures import arguments, say_build, write

from backend_watcher.embedded import EmbeddedPostgres

ROUNDS = 12_000
"""Of the loop in the function: about a millisecond."""

PROGRAM = f"""
import os
from pathlib import Path
from backend_watcher import Watcher

watcher = Watcher("bench")
done = os.open(os.environ["BENCH_DONE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


@watcher.on("tasks")
async def compute(change):
    value = change.new["id"]
    for number in range({ROUNDS}):
        value = (value * 31 + number) % 1000003
    os.write(done, b".")
"""
TABLE = "CREATE TABLE tasks (id bigint PRIMARY KEY)"
ROWS = "INSERT INTO tasks SELECT i FROM generate_series(1, {rows}) AS i"
STREAMS = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"


async def measure(workers: int, rows: int) -> float:
    """Return changes a second, from the first call to the last."""
    with EmbeddedPostgres() as server, tempfile.TemporaryDirectory() as folder:
        done = Path(folder) / "done"
        (Path(folder) / "program.py").write_text(PROGRAM)
        environ = os.environ | {"WATCHER_SOURCE__DSN": server.dsn, "BENCH_DONE": str(done)}
        command = ["-m", "backend_watcher", "run", "program.py", "--workers", str(workers)]
        with psycopg.connect(server.dsn, autocommit=True) as connection, open(Path(folder) / "log", "wb") as log:
            connection.execute(TABLE)
            running = await asyncio.create_subprocess_exec(
                sys.executable, *command, cwd=folder, env=environ, stdout=log, stderr=log
            )
            while not connection.execute(STREAMS).fetchone():
                await asyncio.sleep(0.05)
            connection.execute(ROWS.format(rows=rows))
            sizes: list[tuple[float, int]] = []
            while not sizes or sizes[-1][1] < rows:
                await asyncio.sleep(0.02)
                if done.exists() and (size := done.stat().st_size):
                    sizes.append((time.perf_counter(), size))
            running.send_signal(signal.SIGTERM)
            await running.wait()
    (begun, first), (ended, last) = sizes[0], sizes[-1]
    return (last - first) / (ended - begun)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--workers", type=int, choices=range(1, 1001), metavar="N", default=2)
    parser.add_argument("--rows", type=int, default=3000)
    options = parser.parse_args()
    say_build()
    # By turns, because the machine is not ours alone; the faster run of each counts.
    figures: dict[int, float] = {}
    for workers in (0, options.workers, 0, options.workers):
        figures[workers] = max(figures.get(workers, 0.0), asyncio.run(measure(workers, options.rows)))
    without, several = figures[0], figures[options.workers]
    ratio = several / without
    print(f"changes a second: {without:.0f} in the watcher, {several:.0f} in {options.workers} workers: {ratio:.2f} x")
    figure = {"name": f"handler_{options.workers}_workers", "value": ratio, "unit": "x", "reference": without}
    write([figure], options.json)


if __name__ == "__main__":
    main()
