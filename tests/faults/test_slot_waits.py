"""A start while a transaction writes for long: what is waited for is said, and nothing is left of a start given up."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres

from .judge import distinct
from .results import Part
from .running import Running, environment, until
from .source import insert, seen
from .test_prepared import process

SAID_SECONDS_MAX = 5.0
GONE_SECONDS_MAX = 10.0
"""Until the server has noticed that whoever asked for the slot is gone."""
SLOTS = "SELECT count(*) FROM pg_replication_slots"


def half_made(connection: psycopg.Connection) -> bool:
    return connection.execute(SLOTS).fetchone() == (1,)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.scenario("28", "start while a transaction writes")
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in another database"])
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "kill -9"])
def test_what_is_waited_for_is_said_and_nothing_is_left(
    postgres: EmbeddedPostgres, tmp_path: Path, result: Part, elsewhere: bool, end: int
) -> None:
    environ = environment(tmp_path, postgres)
    dsn = postgres.dsn
    with psycopg.connect(dsn, autocommit=True) as connection:
        if elsewhere:
            connection.execute("CREATE DATABASE other")
            dsn = dsn.rpartition("/")[0] + "/other"
        with psycopg.connect(dsn, autocommit=True) as writer:
            writer.execute("CREATE TABLE long (id int); BEGIN; INSERT INTO long VALUES (1)")
            pid = writer.info.backend_pid
            with Running(tmp_path, environ) as running:
                until(lambda: half_made(connection), "the slot that waits")
                begun = time.monotonic()
                until(lambda: f"pid {pid}" in str(process(tmp_path, environ)["detail"]), "what it waits for")
                said = time.monotonic() - begun
                assert process(tmp_path, environ)["source_state"] == "creating_slot"
                running.send(end)
                running.wait()
            gone = until(lambda: not half_made(connection), "no slot", 60.0)
            # It begins again where it was given up, and goes on by itself.
            with Running(tmp_path, environ) as running:
                until(lambda: half_made(connection), "the slot that waits")
                writer.execute("ROLLBACK")
                running.wait_for_streaming(connection)
                insert(connection, 1, 10)
                until(lambda: seen(running) >= 10, "delivery")
                assert running.end() == 0
    result.add(runs=1, lost=10 - distinct(tmp_path / "seen"), said_seconds_max=said, gone_seconds_max=gone)
    assert said <= SAID_SECONDS_MAX
    assert gone <= GONE_SECONDS_MAX
