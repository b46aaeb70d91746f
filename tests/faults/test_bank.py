"""Random `kill -9` under bank transfers: no commit ever shows money lost or made."""

from __future__ import annotations

import signal
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey

from .judge import broken_sums, cache_differences, distinct, judge, read_seen
from .ledger import Ledger
from .results import Part
from .running import TIMED_EACH, Running, environment, pause, until
from .scale import dice, repeats
from .workload import Workload, transfers

KILLS = repeats(10, 250)
"""In each of the runs, which can be side by side."""

RUNS = repeats(1, 2)


@pytest.mark.slow
@pytest.mark.timeout(repeats(240, 2400))
@pytest.mark.scenario("3", "random kills under bank transfers")
@pytest.mark.parametrize("run", range(RUNS))
def test_the_sum_is_the_same_at_every_commit(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part, run: int
) -> None:
    rolls = dice(f"bank {run}")
    environ = environment(tmp_path, postgres, valkey)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with Running(tmp_path, environ) as first:
            first.wait_for_streaming(connection)
            first.end()
        # A pause that keeps the log of hundreds of kills small enough to judge.
        with Workload(postgres.dsn, rolls.random(), transfers, pause_seconds=repeats(2, 20) / 1000) as workload:
            for number in range(KILLS):
                timed = number % TIMED_EACH == 0
                with Running(tmp_path, environ, often=not timed) as running:
                    # At any time, its start included; now and then it surely gets as far as delivering.
                    if timed or number % TIMED_EACH == 1:
                        usual = running.wait_for_delivery()
                        if timed:
                            result.add(recovery_seconds_max=usual)
                        pause(rolls.uniform(0, 0.5))
                    else:
                        pause(usual * rolls.uniform(0.5, 1.5))
                    running.end(signal.SIGKILL)
                    result.add(runs=1)
            workload.stop()
        with Running(tmp_path, environ) as last:
            facts = ledger.facts()
            until(lambda: distinct(tmp_path / "seen") >= len(facts), "catching up")
            assert last.end(signal.SIGTERM) == 0
        seen = read_seen(tmp_path / "seen")
        judge(facts, seen).check(result)
        result.add(broken_sums=broken_sums(seen))
        assert broken_sums(seen) == 0
        assert cache_differences(connection, valkey.url) == 0
