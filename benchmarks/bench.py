"""Measures every figure of DESIGN in one run, each beside its reference: see README.md in this folder."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import backlog
import latency
import verify
from figures import arguments, say_build, write

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey
from backend_watcher.embedded.install import find_postgres

HERE = Path(__file__).parent
VERIFY_SHARE = 5
"""Verified is a table with so much less rows than the backlog has: `make bench-verify` has them all."""
TARGETS = {"decode": 1.0, "handler": 0.85, "handler_batch": 0.85, "redis_cache": 0.5}
REFERENCE = "pg_recvlogical -f /dev/null on a copy of the slot"
SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "8GB", "max_slot_wal_keep_size": "-1"}


def pg_recvlogical(dsn: str, end: str, number: int) -> float:
    """Read a copy of the slot with PostgreSQL's own client; return the seconds."""
    slot = f"reference_{number}"
    backlog.copy_slot(dsn, slot)
    program = find_postgres().program("pg_recvlogical")
    begun = time.perf_counter()
    command = [str(program), "-d", dsn, "-S", slot, "--start", "-f", "/dev/null", "--endpos", end]
    command += ["-o", "proto_version=1", "-o", f"publication_names={backlog.PUBLICATION}"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - begun
    backlog.drop_slot(dsn, slot)
    return seconds


def path(name: str, dsn: str, redis: str, expected: int) -> dict[str, float]:
    """Run one path in a process of its own on another copy of the slot."""
    slot = f"path_{name}"
    backlog.copy_slot(dsn, slot)
    command = [str(HERE / "path.py"), name, "--dsn", dsn, "--slot", slot, "--expected", str(expected)]
    figures = script(*command, "--redis", redis)
    backlog.drop_slot(dsn, slot)
    return figures


def script(*command: str) -> dict[str, float]:
    """Run one of our scripts; return the JSON object that it prints last."""
    done = subprocess.run([sys.executable, *command], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def commit_to_handler(dsn: str, seconds: float) -> dict[str, float]:
    """Measure at a steady rate, the load in a process of its own."""
    latency.prepare(dsn)
    arguments = ["--dsn", dsn, "--seconds", str(seconds)]
    loader = subprocess.Popen([sys.executable, str(HERE / "latency.py"), "load", *arguments])
    try:
        return script(str(HERE / "latency.py"), "measure", *arguments)
    finally:
        loader.terminate()
        loader.wait()


def figure(name: str, value: float, unit: str, reference: str, target: float | None) -> dict[str, Any]:
    aim = "" if target is None else f"   goal {'>=' if unit == 'ratio' else '<='} {target:g}"
    print(f"{name:26} {value:10.2f} {unit:6} {aim}   ({reference})", flush=True)
    return {"name": name, "value": round(value, 4), "unit": unit, "reference": reference, "target": target}


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    expected = options.rows + options.updates
    figures = []
    with EmbeddedPostgres(settings=SETTINGS) as postgres, EmbeddedValkey() as valkey:
        begun = time.perf_counter()
        end = backlog.write(postgres.dsn, options.rows, options.updates)
        print(f"backlog of {expected:,} changes written in {time.perf_counter() - begun:.1f} s", flush=True)
        before = pg_recvlogical(postgres.dsn, end, 0)
        for number, (name, target) in enumerate(TARGETS.items(), 1):
            taken = path(name, postgres.dsn, valkey.url, expected)
            after = pg_recvlogical(postgres.dsn, end, number)
            reference = f"{taken['seconds']:.2f} s; {REFERENCE}: {before:.2f} and {after:.2f} s"
            figures.append(figure(name, min(before, after) / taken["seconds"], "ratio", reference, target))
            before = after
            if name == "handler":
                rest = [("peak_memory_mb", taken["peak_memory_mb"], "MB", 200.0)]
                rest += [("cpu_seconds_per_million", taken["cpu_seconds"] * 1e6 / expected, "s", None)]
    with EmbeddedPostgres(settings=SETTINGS) as postgres:
        delays = commit_to_handler(postgres.dsn, options.seconds)
    at = f"commit by the source's clock to handler, {latency.RATE} transactions a second"
    figures.append(figure("latency_p50_ms", delays["latency_p50_ms"], "ms", at, 1.0))
    figures.append(figure("latency_p99_ms", delays["latency_p99_ms"], "ms", at, 5.0))
    figures += [figure(name, value, unit, "the handler path's process", aim) for name, value, unit, aim in rest]
    for kind in verify.COPIES:
        figures += verify.measure(kind, options.rows // VERIFY_SHARE)
    return figures


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the one large transaction")
    parser.add_argument("--updates", type=int, default=200_000, help="transactions of one update each")
    parser.add_argument("--seconds", type=float, default=10, help="how long the latency is measured")
    options = parser.parse_args()
    say_build()
    write(measure(options), options.json)


if __name__ == "__main__":
    main()
