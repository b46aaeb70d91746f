"""The cache server is killed and started again under load, with every write on its disk: nothing is lost."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey

from .judge import cache_differences
from .results import Part
from .running import Running, environment, pause, until
from .scale import dice, repeats
from .workload import Workload

TIMES = repeats(4, 50)
DURABLE = {"appendonly": "yes", "appendfsync": "always"}


@pytest.mark.slow
@pytest.mark.timeout(repeats(180, 900))
@pytest.mark.scenario("41", "Valkey killed and restarted under load")
def test_a_durable_cache_loses_nothing(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    rolls = dice("cache server")
    with (
        EmbeddedValkey(tmp_path / "valkey", settings=DURABLE) as valkey,
        psycopg.connect(postgres.dsn, autocommit=True) as connection,
        Running(tmp_path, environment(tmp_path, postgres, valkey)) as running,
    ):
        running.wait_for_streaming(connection)
        with Workload(postgres.dsn, rolls.random()) as workload:
            for number in range(TIMES):
                pause(rolls.uniform(0.2, 1.0))
                if number % 2:
                    valkey.restart()
                else:
                    valkey.kill()
                    # Long enough for deliveries to fail, and for the watcher to wait.
                    pause(rolls.uniform(0, 1.0))
                    valkey.start()
                result.add(runs=1)
            workload.stop()
        begun = time.monotonic()
        until(lambda: cache_differences(connection, valkey.url) == 0, "the cache being equal", 60.0)
        result.add(recovery_seconds_max=time.monotonic() - begun, lost=cache_differences(connection, valkey.url))
        assert running.end(signal.SIGTERM) == 0
