"""PostgreSQL is never told to forget what is not on the disk, whatever the sinks do."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey

from .judge import cache_differences, distinct, judge, read_lines, read_seen
from .ledger import Ledger
from .results import Part
from .running import Running, environment, pause, until
from .sampler import AckSafety, Memory
from .scale import dice, repeats
from .workload import Workload

SECONDS = repeats(12, 120)
PAUSED_SECONDS = repeats(4, 40)
RSS_MAX = 300 << 20
SINKS = "handler,cache,file"


@pytest.mark.slow
@pytest.mark.timeout(repeats(180, 900))
@pytest.mark.scenario("1", "ack safety sampled under load, a sink paused")
def test_the_slot_is_never_after_the_journal(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part
) -> None:
    environ = environment(tmp_path, postgres, valkey, FAULTS_SINKS=SINKS, FAULTS_DELAY="0.004")
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with Running(tmp_path, environ) as running:
            running.wait_for_streaming(connection)
            with (
                AckSafety(postgres.dsn, running.journal) as safety,
                Memory(lambda: running.process.pid) as memory,
                Workload(postgres.dsn, dice("ack safety").random(), clients=3) as workload,
            ):
                pause(SECONDS / 3)
                # A cache that does not answer: its subscription stands still, and nothing else does.
                os.kill(valkey.pid, signal.SIGSTOP)
                try:
                    pause(PAUSED_SECONDS)
                finally:
                    os.kill(valkey.pid, signal.SIGCONT)
                pause(max(1.0, SECONDS * 2 / 3 - PAUSED_SECONDS))
                workload.stop()
                facts = ledger.facts()
                until(lambda: distinct(tmp_path / "seen") >= len(facts), "the handler's catching up")
                until(lambda: cache_differences(connection, valkey.url) == 0, "the cache's catching up")
            assert running.end(signal.SIGTERM) == 0
        result.add(
            runs=1,
            samples=safety.samples,
            ack_violations=safety.violations,
            rss_mib_max=memory.rss_max >> 20,
        )
        assert safety.violations == 0
        assert safety.advanced > SECONDS / 2, "the slot did not move: the samples show nothing"
        assert memory.rss_max <= RSS_MAX
        judge(facts, read_seen(tmp_path / "seen")).check(result)
        assert judge(facts, read_lines(tmp_path / "lines")).lost == 0
