"""A handler slower than the server's patience: the walsender never waits for it."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres

from .judge import judge, read_seen
from .ledger import Ledger
from .results import Part
from .running import Running, environment, pause, streams
from .scale import dice, repeats
from .workload import Workload

SENDER_SECONDS = repeats(2, 5)
SLOW_SECONDS = repeats(4, 20)
SECONDS = repeats(8, 60)


@pytest.mark.slow
@pytest.mark.timeout(repeats(120, 600))
@pytest.mark.scenario("12", "handler slower than wal_sender_timeout")
@pytest.mark.parametrize("postgres", [{"wal_sender_timeout": f"{SENDER_SECONDS}s"}], indirect=True)
@pytest.mark.parametrize("how", ["waits", "blocks the event loop"])
def test_a_slow_handler_never_costs_the_stream(
    postgres: EmbeddedPostgres, tmp_path: Path, result: Part, how: str
) -> None:
    blocks = {"FAULTS_BLOCKS": "1"} if "blocks" in how else {}
    environ = environment(tmp_path, postgres, FAULTS_DELAY=str(SLOW_SECONDS), **blocks)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with Running(tmp_path, environ) as running:
            running.wait_for_streaming(connection)
            (pid,) = connection.execute("SELECT pid FROM pg_stat_replication").fetchone()
            with Workload(postgres.dsn, dice(f"slow, {how}").random(), pause_seconds=0.02) as workload:
                pause(SECONDS)
                workload.stop()
            assert streams(connection)
            assert connection.execute("SELECT pid FROM pg_stat_replication").fetchone() == (pid,), "another walsender"
            running.process.kill()
        terminated = postgres.log_path.read_text().count("terminating walsender")
        result.add(runs=1, walsenders_terminated=terminated)
        assert terminated == 0
        verdict = judge(ledger.facts(), read_seen(tmp_path / "seen"))
        assert verdict.phantoms == 0
        assert verdict.order_violations == 0
