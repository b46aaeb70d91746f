"""The machine loses power under load; the model is in `power.py`. The journal opens, and nothing is lost."""

from __future__ import annotations

import signal
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey

from .judge import cache_differences, distinct, judge, read_seen
from .ledger import Ledger
from .power import lose_power
from .results import Part
from .running import TIMED_EACH, Running, environment, pause, until
from .scale import dice, repeats
from .workload import Workload

LOSSES = repeats(8, 50)


@pytest.mark.slow
@pytest.mark.timeout(repeats(240, 900))
@pytest.mark.scenario("6", "power loss: unsynced sectors roll back")
def test_power_is_lost_again_and_again(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part
) -> None:
    rolls = dice("power loss")
    synced = tmp_path / "synced"
    # Checkpoints often enough to be met by a power loss.
    environ = environment(tmp_path, postgres, valkey, FAULTS_SYNCED=str(synced), FAULTS_CHECKPOINT_BYTES=str(256 << 10))
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with Running(tmp_path, environ) as first:
            first.wait_for_streaming(connection)
            first.end()
        with Workload(postgres.dsn, rolls.random(), pause_seconds=0.01) as workload:
            for number in range(LOSSES):
                # Half of the time in the middle of a sync, or of a checkpoint.
                unsynced = {"FAULTS_UNSYNCED": str(rolls.randint(2, 40))} if rolls.random() < 0.5 else {}
                timed = number % TIMED_EACH == 0
                with Running(tmp_path, environ | unsynced, often=not timed) as running:
                    took = running.wait_for_delivery()
                    if timed:
                        result.add(recovery_seconds_max=took)
                    until(lambda run=running: run.ended, "the sync") if unsynced else pause(rolls.uniform(0, 1))
                    assert running.end(signal.SIGKILL) == -signal.SIGKILL, running.log()[-2000:]
                result.add(runs=1, sectors_taken_back=lose_power(running.journal, synced, rolls))
            workload.stop()
        with Running(tmp_path, environ) as last:
            facts = ledger.facts()
            until(lambda: distinct(tmp_path / "seen") >= len(facts), "catching up")
            assert last.end() == 0
        judge(facts, read_seen(tmp_path / "seen")).check(result)
        assert cache_differences(connection, valkey.url) == 0
        assert result.figures["sectors_taken_back"] > 0, "the disk had kept everything: nothing was shown"
