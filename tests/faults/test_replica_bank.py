"""TPC-B into another PostgreSQL, with a kill -9 now and then: equal in the end, and never a wrong sum on the way."""

from __future__ import annotations

import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.embedded.install import find_postgres

from .results import Part
from .running import Running, environment, pause, until
from .sampler import Sampler
from .scale import dice, repeats

PROGRAM = Path(__file__).parent / "replica_program.py"
TABLES = ("pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history")
SECONDS = repeats(12, 300)
KILLS = repeats(3, 20)
CLIENTS = 2
COMMAND_SECONDS_MAX = 600.0
SUMS = """
    SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
           (SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)
"""
DIGEST = "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0) FROM {} t"


class Sums(Sampler):
    """Looks at the replica as any reader may, in one snapshot each time; `wrong` counts the sums that differ."""

    def __init__(self, dsn: str) -> None:
        super().__init__(0.02)
        self._connection = psycopg.connect(dsn, autocommit=True)
        self.wrong = 0
        self.seen: set[Any] = set()

    def __exit__(self, *what: object) -> None:
        super().__exit__(*what)
        self._connection.close()

    def look(self) -> None:
        row = self._connection.execute(SUMS).fetchone()
        self.samples += 1
        self.seen.add(row)
        self.wrong += len(set(row)) != 1


def pgbench(*arguments: str) -> None:
    """Run pgbench to its end."""
    command = [str(find_postgres().program("pgbench")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def digests(dsn: str) -> dict[str, Any]:
    with psycopg.connect(dsn) as connection:
        return {table: connection.execute(DIGEST.format(table)).fetchone() for table in TABLES}


@pytest.mark.slow
@pytest.mark.large
@pytest.mark.timeout(repeats(240, 900))
@pytest.mark.scenario("3r", "random kills under TPC-B, into another PostgreSQL")
def test_both_are_equal_and_no_commit_shows_a_wrong_sum(
    postgres: EmbeddedPostgres, tmp_path: Path, result: Part
) -> None:
    rolls = dice("tpc-b")
    with EmbeddedPostgres() as target:
        for dsn in (postgres.dsn, target.dsn):
            pgbench("-i", "-q", "-s", "1", dsn)
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            # It has no key: each of its rows must come exactly once all the same.
            connection.execute("ALTER TABLE pgbench_history REPLICA IDENTITY FULL")
            environ = environment(tmp_path, postgres, FAULTS_REPLICA=target.dsn)
            with Running(tmp_path, environ, program=PROGRAM) as first:
                first.wait_for_streaming(connection)
                assert first.end() == 0
            load = threading.Thread(
                target=pgbench, args=("-n", "-c", str(CLIENTS), "-R", "200", "-T", str(SECONDS), postgres.dsn)
            )
            with Sums(target.dsn) as sums:
                load.start()
                for _ in range(KILLS):
                    with Running(tmp_path, environ, program=PROGRAM, often=True) as running:
                        pause(SECONDS / KILLS * rolls.uniform(0.3, 1.2))
                        running.end(signal.SIGKILL)
                    result.add(runs=1)
                with Running(tmp_path, environ, program=PROGRAM) as last:
                    load.join()
                    caught_up = until(lambda: digests(target.dsn) == digests(postgres.dsn), "catching up")
                    assert last.end(signal.SIGTERM) == 0
            (committed,) = connection.execute("SELECT count(*) FROM pgbench_history").fetchone()
    print(f"{committed} transactions, {len(sums.seen)} states seen in {sums.samples} looks")
    result.add(committed=committed, looks=sums.samples, wrong_sums=sums.wrong, recovery_seconds_max=caught_up)
    assert sums.wrong == 0
    assert len(sums.seen) > KILLS
