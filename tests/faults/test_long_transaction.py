"""One transaction that takes long, and a watcher that is started again and again meanwhile: delivered completely."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres

from .judge import distinct, judge, read_seen
from .ledger import Ledger
from .results import Part
from .running import Running, environment, pause, until
from .scale import dice, repeats
from .workload import IN_PARTS

ROWS = repeats(100_000, 1_000_000)
SECONDS = repeats(20, 600)
RESTART_SECONDS = repeats(3, 20)
PIECES = 100
WAL_SENDER_TIMEOUT_SECONDS = 5
TERMINATED = "terminating walsender"


class Long:
    """Writes its rows in pieces, evenly over the time it has, and commits once."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._thread = threading.Thread(target=self._write)
        self._over = threading.Event()
        self.committed_at = 0.0

    def start(self) -> None:
        self._thread.start()

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def _write(self) -> None:
        with psycopg.connect(self._dsn) as connection:
            for piece in range(PIECES):
                first = 1 + piece * ROWS // PIECES
                last = (piece + 1) * ROWS // PIECES
                query = "INSERT INTO items SELECT n, 1, 'x' FROM generate_series(%s::int, %s::int) n"
                connection.execute(query, [first, last])
                self._over.wait(SECONDS / PIECES)
        self.committed_at = time.monotonic()


@pytest.mark.slow
@pytest.mark.large
@pytest.mark.timeout(repeats(240, 1500))
@pytest.mark.scenario("10", "restarts while one transaction runs")
@pytest.mark.parametrize("streaming", [True, False], ids=["in parts", "whole"])
@pytest.mark.parametrize(
    "postgres", [IN_PARTS | {"wal_sender_timeout": f"{WAL_SENDER_TIMEOUT_SECONDS}s"}], indirect=True, ids=[""]
)
def test_it_is_delivered_completely(postgres: EmbeddedPostgres, tmp_path: Path, result: Part, streaming: bool) -> None:
    rolls, restarts = dice("long transaction"), 0
    environ = environment(tmp_path, postgres, WATCHER_SOURCE__STREAMING=str(streaming).lower())
    long = Long(postgres.dsn)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with Running(tmp_path, environ) as first:
            first.wait_for_streaming(connection)
            long.start()
            pause(RESTART_SECONDS)
            first.end(signal.SIGKILL)
        # Twice more when it has committed: in the middle of its delivery.
        after = 2
        while after:
            after -= long.ended
            with Running(tmp_path, environ, often=True) as running:
                running.wait_for_streaming(connection)
                pause(min(RESTART_SECONDS, 1.0) if long.ended else RESTART_SECONDS)
                running.end(rolls.choice([signal.SIGKILL, signal.SIGTERM]))
                restarts += 1
        with Running(tmp_path, environ) as last:
            begun = time.monotonic()
            until(lambda: distinct(tmp_path / "seen") >= ROWS or last.ended, "delivery", 600.0)
            took = time.monotonic() - begun
            # All of it may have come before: it is not ended before it has begun.
            last.wait_for_streaming(connection)
            assert last.end() == 0, last.log()[-3000:]
        facts = ledger.facts()
    terminated = sum(TERMINATED in line for line in postgres.log_path.read_text(errors="replace").splitlines())
    verdict = judge(facts, read_seen(tmp_path / "seen"))
    print(f"{restarts} restarts, the rest {took:.1f} s after the last one, {terminated} walsenders terminated")
    result.add(runs=1, restarts=restarts, recovery_seconds_max=took, walsenders_terminated=terminated)
    verdict.check(result)
    assert verdict.committed == ROWS
    assert terminated == 0
    assert restarts >= SECONDS // (2 * RESTART_SECONDS)
