"""SIGTERM under load: a clean end, soon, and nothing comes twice."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey

from .judge import distinct, judge, read_seen
from .ledger import Ledger
from .results import Part
from .running import SLOT, Running, environment, pause, until
from .scale import dice, repeats
from .workload import Workload

STOPS = repeats(5, 50)
STOP_SECONDS_MAX = 10.0
INACTIVE_SECONDS_MAX = 1.0
ACTIVE = "SELECT active FROM pg_replication_slots WHERE slot_name = %s"


@pytest.mark.slow
@pytest.mark.timeout(repeats(180, 600))
@pytest.mark.scenario("4", "SIGTERM under load")
def test_a_clean_stop_under_load_repeats_nothing(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part
) -> None:
    rolls = dice("clean stops")
    environ = environment(tmp_path, postgres, valkey)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with Running(tmp_path, environ) as first:
            first.wait_for_streaming(connection)
            assert first.end() == 0
        with Workload(postgres.dsn, rolls.random()) as workload:
            for _ in range(STOPS):
                with Running(tmp_path, environ, often=True) as running:
                    running.wait_for_delivery()
                    pause(rolls.uniform(0, 0.5))
                    begun = time.monotonic()
                    assert running.end(signal.SIGTERM) == 0, running.log()[-2000:]
                    took = time.monotonic() - begun
                inactive = until(lambda: not connection.execute(ACTIVE, [SLOT]).fetchone()[0], "an inactive slot", 10.0)
                result.add(runs=1, stop_seconds_max=took, inactive_seconds_max=inactive)
                assert took <= STOP_SECONDS_MAX
                assert inactive <= INACTIVE_SECONDS_MAX
            workload.stop()
        with Running(tmp_path, environ) as last:
            facts = ledger.facts()
            until(lambda: distinct(tmp_path / "seen") >= len(facts), "catching up")
            assert last.end() == 0
        verdict = judge(facts, read_seen(tmp_path / "seen"))
        verdict.check(result)
        assert verdict.duplicates == 0
