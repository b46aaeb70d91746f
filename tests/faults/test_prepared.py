"""A transaction that is prepared and left: told of, and delivered when it is committed at last."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres

from .judge import distinct
from .results import Part
from .running import PROGRAM, Running, environment, until
from .shell import SHELL_SECONDS_MAX
from .source import insert, seen

TOLD_SECONDS_MAX = 15.0
"""After it is old enough: one look of the watch, and the command."""
OLD_SECONDS = 2.0


def process(folder: Path, environ: dict[str, str]) -> dict[str, object]:
    """Return what `watcher status` says of the process."""
    command = [sys.executable, "-m", "backend_watcher", "status", str(PROGRAM), "--json"]
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=SHELL_SECONDS_MAX, check=True
    )
    return json.loads(done.stdout)["process"]


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.scenario("67", "a prepared transaction left open")
@pytest.mark.parametrize("postgres", [{"max_prepared_transactions": "5"}], indirect=True, ids=[""])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in another database"])
def test_it_is_told_of_and_delivered_when_it_is_committed(
    postgres: EmbeddedPostgres, tmp_path: Path, result: Part, elsewhere: bool
) -> None:
    environ = environment(tmp_path, postgres, WATCHER_SOURCE__PREPARED_SECONDS_MAX=str(OLD_SECONDS))
    dsn = postgres.dsn
    with psycopg.connect(dsn, autocommit=True) as connection, Running(tmp_path, environ) as running:
        running.wait_for_streaming(connection)
        if elsewhere:
            connection.execute("CREATE DATABASE other")
            dsn = dsn.rpartition("/")[0] + "/other"
        with psycopg.connect(dsn, autocommit=True) as writer:
            writer.execute("CREATE TABLE IF NOT EXISTS items (id int PRIMARY KEY, version bigint, note text)")
            for statement in ("BEGIN", "INSERT INTO items VALUES (7, 1, 'x')", "PREPARE TRANSACTION 'order 7'"):
                writer.execute(statement)
            begun = time.monotonic()
            insert(connection, 101, 110)
            until(lambda: seen(running) >= 10, "delivery of the others")
            until(lambda: process(tmp_path, environ)["source_state"] == "prepared_open", "the alarm")
            took = time.monotonic() - begun
            assert "COMMIT PREPARED 'order 7'" in str(process(tmp_path, environ)["detail"])
            assert "a prepared transaction is left open" in running.log()
            assert seen(running) == 10
            writer.execute("COMMIT PREPARED 'order 7'")
        until(lambda: process(tmp_path, environ)["source_state"] == "streaming", "the end of the alarm")
        until(lambda: seen(running) >= (10 if elsewhere else 11), "delivery")
        assert running.log().count("left open") == 1, "told once"
        assert running.end() == 0
    lost = (10 if elsewhere else 11) - distinct(tmp_path / "seen")
    result.add(runs=1, lost=lost, told_seconds_max=took)
    assert took <= OLD_SECONDS + TOLD_SECONDS_MAX
