"""Several slow sinks, large rows and a cache that stands still: the watcher's memory stays below its bound."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey

from .results import Part
from .running import Running, environment, pause
from .sampler import AckSafety, Memory
from .scale import dice, repeats
from .workload import Workload, large_rows

SECONDS = repeats(12, 90)
RSS_MAX = 300 << 20
SINKS = "handler,cache,file"


@pytest.mark.slow
@pytest.mark.timeout(repeats(120, 600))
@pytest.mark.scenario("61", "memory with slow sinks and large rows")
def test_memory_is_bounded_whatever_is_behind(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part
) -> None:
    environ = environment(tmp_path, postgres, valkey, FAULTS_SINKS=SINKS, FAULTS_DELAY="0.2")
    with psycopg.connect(postgres.dsn, autocommit=True) as connection, Running(tmp_path, environ) as running:
        running.wait_for_streaming(connection)
        os.kill(valkey.pid, signal.SIGSTOP)
        try:
            with (
                Memory(lambda: running.process.pid) as memory,
                AckSafety(postgres.dsn, running.journal) as safety,
                Workload(postgres.dsn, dice("memory").random(), large_rows, pause_seconds=0.02) as workload,
            ):
                pause(SECONDS)
                workload.stop()
        finally:
            os.kill(valkey.pid, signal.SIGCONT)
        assert not running.ended, running.log()[-2000:]
        (written,) = connection.execute("SELECT sum(pg_column_size(i)) >> 20 FROM items i").fetchone()
        running.process.kill()
        result.add(runs=1, rss_mib_max=memory.rss_max >> 20, samples=memory.samples, transactions=workload.transactions)
        print(f"{written} MiB of rows, {workload.transactions} transactions, {memory.rss_max >> 20} MiB at most")
        assert memory.samples > SECONDS
        assert safety.violations == 0
        assert memory.rss_max <= RSS_MAX
