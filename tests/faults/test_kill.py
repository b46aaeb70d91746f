"""`kill -9` of `watcher run` again and again under load: nothing lost, per-key order kept, the cache equal."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey

from .judge import cache_differences, distinct, judge, read_seen
from .ledger import Ledger
from .results import Part
from .running import TIMED_EACH, Running, environment, pause, until
from .scale import dice, repeats
from .workload import Workload

KILLS = int(os.environ.get("FAULTS_KILLS", repeats(10, 50)))
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


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.scenario("2", "kill -9 at every probe")
def test_killed_under_load_nothing_is_lost(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part
) -> None:
    rolls = dice("kills under load")
    environ = environment(tmp_path, postgres, valkey)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        # The slot is made before the load begins, so that all of it is owed.
        first = Running(tmp_path, environ)
        first.wait_for_streaming(connection)
        with Workload(postgres.dsn, rolls.random()) as workload:
            first.wait_for_delivery()
            first.end(signal.SIGKILL)
            for number in range(1, KILLS):
                probe, timed = rolls.choice(PROBES).format(n=rolls.randint(1, 200)), number % TIMED_EACH == 0
                running = Running(tmp_path, environ, probe, often=not timed)
                took = running.wait_for_delivery()
                if timed:
                    result.add(recovery_seconds_max=took)
                pause(rolls.uniform(0, 0.5))
                running.end(signal.SIGKILL)
            workload.stop()
        with Running(tmp_path, environ) as last:
            facts = ledger.facts()
            until(lambda: distinct(tmp_path / "seen") >= len(facts), "catching up")
            assert last.end(signal.SIGTERM) == 0
        result.add(runs=KILLS)
        judge(facts, read_seen(tmp_path / "seen")).check(result)
        assert cache_differences(connection, valkey.url) == 0
