"""The slot taken away, moved or given up, while we run and while we do not: never streamed on silently."""

from __future__ import annotations

import signal
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres

from .judge import distinct
from .results import Part
from .running import SLOT, Running, environment, pause, until
from .scale import repeats
from .source import first_run, insert, refused, seen, stopped

DROP = f"SELECT pg_drop_replication_slot('{SLOT}')"
CREATE = f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')"
ADVANCE = f"SELECT pg_replication_slot_advance('{SLOT}', pg_current_wal_lsn())"
END = f"SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots WHERE slot_name = '{SLOT}' AND active"
FREE = f"SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{SLOT}'"
STATUS = f"SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{SLOT}'"
LOST_SECONDS_MAX = 60.0
TRIES_MAX = 3
WAYS = {
    "dropped": ((DROP,), ("does not exist any more",)),
    "made again at once": ((DROP, CREATE), ("stands at", "made again")),
    "made again after rows": ((DROP, "rows", CREATE), ("stands at",)),
    "advanced": (("rows", ADVANCE), ("stands at", "advanced")),
}


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.scenario("25", "slot dropped, recreated, advanced")
@pytest.mark.parametrize("way", WAYS)
def test_while_we_are_down(postgres: EmbeddedPostgres, tmp_path: Path, result: Part, way: str) -> None:
    environ = environment(tmp_path, postgres)
    statements, words = WAYS[way]
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        first_run(tmp_path, environ, connection)
        until(lambda: connection.execute(FREE).fetchone()[0], "a free slot")
        for statement in statements:
            if statement == "rows":
                insert(connection, 101, 200)
            else:
                connection.execute(statement)
        # Stopped before any delivery, and again and again.
        for _ in range(repeats(1, 3)):
            refused(tmp_path, environ, *words)
    result.add(runs=1, silent_starts=0)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.scenario("25", "slot dropped, recreated, advanced")
@pytest.mark.parametrize("again", [False, True], ids=["dropped", "made again"])
def test_while_we_run(postgres: EmbeddedPostgres, tmp_path: Path, result: Part, again: bool) -> None:
    environ = environment(tmp_path, postgres)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection, Running(tmp_path, environ) as running:
        running.wait_for_streaming(connection)
        insert(connection, 1, 100)
        until(lambda: seen(running) >= 100, "delivery")
        # In one session, so that the watcher cannot be back in between.
        until(lambda: take(connection, again), "the slot")
        took = stopped(running, "replication slot" if not again else "slot")
    result.add(runs=1, noticed_seconds_max=took)
    assert distinct(tmp_path / "seen") == 100


def take(connection: psycopg.Connection, again: bool) -> bool:
    connection.execute(END)
    try:
        connection.execute(DROP)
    except (psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):
        return False
    if again:
        connection.execute(CREATE)
    return True


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.scenario("26", "slot invalidated")
@pytest.mark.parametrize(
    "postgres",
    [
        {
            "max_slot_wal_keep_size": "16MB",
            "min_wal_size": "32MB",
            "max_wal_size": "32MB",
            "log_replication_commands": "on",
            # A checkpoint waits for the walsender of a process that hangs.
            "wal_sender_timeout": "3s",
        }
    ],
    indirect=True,
    ids=["wal_removed"],
)
def test_its_wal_is_removed_while_we_hang(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    environ = environment(tmp_path, postgres)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection, Running(tmp_path, environ) as running:
        running.wait_for_streaming(connection)
        insert(connection, 1, 100)
        until(lambda: seen(running) >= 100, "delivery")
        running.send(signal.SIGSTOP)
        connection.execute("CREATE TABLE wide (t text)")

        def fill() -> bool:
            connection.execute("INSERT INTO wide SELECT repeat(md5(n::text), 30) FROM generate_series(1, 20000) n")
            connection.execute("SELECT pg_switch_wal()")
            connection.execute("CHECKPOINT")
            return connection.execute(STATUS).fetchone()[0] == "lost"

        until(fill, "an invalidated slot", 60.0)
        before = starts(postgres)
        running.send(signal.SIGCONT)
        took = stopped(running, "gave up slot" if "gave up" in running.log() else "is lost", within=LOST_SECONDS_MAX)
        tries = starts(postgres) - before
        result.add(runs=1, noticed_seconds_max=took, start_replication_tries_max=tries)
        assert tries <= TRIES_MAX
        refused(tmp_path, environ, "slot")
        assert starts(postgres) - before <= TRIES_MAX
        assert distinct(tmp_path / "seen") == 100


def starts(server: EmbeddedPostgres) -> int:
    return server.log_path.read_text(errors="replace").count("START_REPLICATION SLOT")


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.scenario("26", "slot invalidated")
@pytest.mark.parametrize("postgres", [{"idle_replication_slot_timeout": "1s"}], indirect=True, ids=["idle_timeout"])
def test_it_was_idle_for_too_long(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    environ = environment(tmp_path, postgres)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        first_run(tmp_path, environ, connection)
        insert(connection, 101, 200)

        def invalidated() -> bool:
            # Checkpoints that follow each other at once do not see it as idle.
            pause(1.5)
            connection.execute("CHECKPOINT")
            return connection.execute(STATUS).fetchone()[0] == "lost"

        until(invalidated, "an invalidated slot", 30.0)
        refused(tmp_path, environ, "idle_timeout")
    result.add(runs=1)
