"""
The watcher's wall clock jumps: nothing is lost, nothing comes out of order, nothing stops.

The clock is scripted (`clock/sitecustomize.py`): what Python code reads as wall time. The source's own clock is not
moved, because nothing that is on every machine can do that.
"""

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
from .running import Running, environment, pause, until
from .sampler import AckSafety
from .scale import dice, repeats
from .workload import Workload

CLOCK = Path(__file__).parent / "clock"
JUMPS = ["0", "-3600", "86400", "frozen", "0"]
SECONDS_EACH = repeats(1, 10)


@pytest.mark.slow
@pytest.mark.timeout(repeats(120, 600))
@pytest.mark.scenario("56", "the watcher's clock jumps and stands still")
def test_a_clock_that_jumps_harms_nothing(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part
) -> None:
    clock = tmp_path / "clock"
    paths = os.pathsep.join(filter(None, [str(CLOCK), os.environ.get("PYTHONPATH", "")]))
    environ = environment(tmp_path, postgres, valkey, PYTHONPATH=paths, FAULTS_CLOCK=str(clock))
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with Running(tmp_path, environ) as running:
            running.wait_for_streaming(connection)
            with (
                AckSafety(postgres.dsn, running.journal) as safety,
                Workload(postgres.dsn, dice("clock").random()) as workload,
            ):
                for told in JUMPS:
                    clock.write_text(told)
                    pause(SECONDS_EACH)
                    running.wait_for_delivery()
                    result.add(runs=1)
                workload.stop()
            facts = ledger.facts()
            until(lambda: distinct(tmp_path / "seen") >= len(facts), "catching up")
            assert running.end(signal.SIGTERM) == 0
        # Also across a restart: yesterday after tomorrow.
        clock.write_text("-86400")
        with Workload(postgres.dsn, dice("clock, again").random()) as workload, Running(tmp_path, environ) as running:
            running.wait_for_delivery()
            pause(1.0)
            workload.stop()
            facts = ledger.facts()
            until(lambda: distinct(tmp_path / "seen") >= len(facts), "catching up")
            assert running.end(signal.SIGTERM) == 0
        assert safety.violations == 0
        verdict = judge(facts, read_seen(tmp_path / "seen"))
        verdict.check(result)
        assert verdict.duplicates == 0
        assert cache_differences(connection, valkey.url) == 0
