"""Tables dropped, renamed, moved and made again, the publication altered, columns changed in mid-transaction."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey
from backend_watcher.journal.view import SqliteJournalView

from .judge import cache_differences, distinct
from .results import Part
from .running import PROGRAM, SLOT, Running, environment, until
from .shell import SHELL_SECONDS_MAX
from .source import insert, seen, stopped

NOTICED_SECONDS_MAX = 60.0
ITEMS = "CREATE TABLE items (id int PRIMARY KEY, version bigint NOT NULL, note text)"
P = SLOT

# What is done, what is told of it, and whether the table can be written under its name afterwards.
FATES = {
    "dropped": (("DROP TABLE items",), ["table_dropped"], False),
    "renamed": (("ALTER TABLE items RENAME TO things",), ["table_renamed"], False),
    "moved": (("CREATE SCHEMA attic", "ALTER TABLE items SET SCHEMA attic"), ["table_moved"], False),
    "made again": (("DROP TABLE items", ITEMS), ["table_recreated"], True),
}


def changes(folder: Path, environ: dict[str, str]) -> list[dict[str, Any]]:
    """Return the schema changes that `watcher status` shows."""
    command = [sys.executable, "-m", "backend_watcher", "status", str(PROGRAM), "--json"]
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=SHELL_SECONDS_MAX, check=True
    )
    return json.loads(done.stdout)["schema_changes"]


def wait_until_known(running: Running) -> None:
    """Return when it has looked at the tables once."""

    def known() -> bool:
        with SqliteJournalView(running.journal) as view:
            return "shapes" in view.notes()

    until(known, "the first look")


def noticed(folder: Path, environ: dict[str, str], kinds: list[str]) -> float:
    """Wait until the status shows these, and nothing else; return how long it took."""
    begun = time.monotonic()
    until(lambda: [one["kind"] for one in changes(folder, environ)] == kinds, str(kinds), NOTICED_SECONDS_MAX)
    return time.monotonic() - begun


def published(connection: psycopg.Connection) -> bool:
    query = "SELECT 1 FROM pg_publication_tables WHERE pubname = %s AND tablename = 'items'"
    return connection.execute(query, [P]).fetchone() is not None


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.scenario("30", "table dropped, renamed, moved, made again")
@pytest.mark.parametrize("fate", FATES)
def test_a_table_with_a_backlog(postgres: EmbeddedPostgres, tmp_path: Path, result: Part, fate: str) -> None:
    statements, kinds, writable = FATES[fate]
    environ = environment(tmp_path, postgres)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection, Running(tmp_path, environ) as running:
        running.wait_for_streaming(connection)
        wait_until_known(running)
        # It does not read: what is written and done now is a backlog in the slot.
        running.send(signal.SIGSTOP)
        insert(connection, 1, 500)
        for statement in statements:
            connection.execute(statement.encode())
        running.send(signal.SIGCONT)
        until(lambda: seen(running) >= 500, "the backlog")
        took = noticed(tmp_path, environ, kinds)
        rows = 500
        if writable:
            until(lambda: published(connection), "being published again")
            insert(connection, 501, 600)
            rows += 100
        # The other tables go on, also after a break.
        connection.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
        connection.execute("UPDATE checking SET version = version + 1")
        rows += 50
        until(lambda: seen(running) >= rows, "delivery")
        assert running.end() == 0, running.log()[-2000:]
    assert distinct(tmp_path / "seen") == rows
    (told,) = changes(tmp_path, environ)
    assert told["table"] == "public.items"
    assert told["needs_reread"] == (fate != "dropped")
    result.add(runs=1, lost=rows - distinct(tmp_path / "seen"), noticed_seconds_max=took)


ALTERED = {
    "dropped": f"ALTER PUBLICATION {P} DROP TABLE items",
    "a row filter": f"ALTER PUBLICATION {P} SET TABLE items WHERE (id < 100), checking, savings",
    "a column list": f"ALTER PUBLICATION {P} SET TABLE items (id, version), checking, savings",
    "operations": f"ALTER PUBLICATION {P} SET (publish = 'insert, update')",
}


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.scenario("31", "publication altered under load")
@pytest.mark.parametrize("way", ALTERED)
def test_what_may_leave_out_rows_stops_it_and_stays_in_the_status(
    postgres: EmbeddedPostgres, tmp_path: Path, result: Part, way: str
) -> None:
    environ = environment(tmp_path, postgres)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection, Running(tmp_path, environ) as running:
        running.wait_for_streaming(connection)
        wait_until_known(running)
        insert(connection, 1, 100)
        until(lambda: seen(running) >= 100, "delivery")
        connection.execute(ALTERED[way].encode())
        for key in range(101, 200):
            insert(connection, key, key)
        took = stopped(running, "publication")
    (told,) = changes(tmp_path, environ)
    assert (told["kind"], told["needs_reread"]) == ("publication_altered", True)
    result.add(runs=1, noticed_seconds_max=took)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.scenario("31", "publication altered under load")
def test_a_table_added_by_somebody_disturbs_nobody(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    environ = environment(tmp_path, postgres)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection, Running(tmp_path, environ) as running:
        running.wait_for_streaming(connection)
        wait_until_known(running)
        connection.execute("CREATE TABLE other (id int PRIMARY KEY)")
        for key in range(1, 101):
            insert(connection, key, key)
            if key == 50:
                connection.execute(f"ALTER PUBLICATION {P} ADD TABLE other".encode())
                connection.execute("INSERT INTO other VALUES (1)")
        until(lambda: seen(running) >= 100, "delivery")
        # One that cannot be updated any more is somebody's application: that is told.
        connection.execute("CREATE TABLE bare (id int)")
        connection.execute(f"ALTER PUBLICATION {P} ADD TABLE bare".encode())
        took = noticed(tmp_path, environ, ["identity_lost"])
        assert running.end() == 0
    assert distinct(tmp_path / "seen") == 100
    result.add(runs=1, lost=0, noticed_seconds_max=took)


SHAPES = (
    "ALTER TABLE items ADD colour text DEFAULT 'red'",
    "ALTER TABLE items ALTER note TYPE varchar(300) USING left(note, 300)",
    "ALTER TABLE items RENAME colour TO shade",
    "ALTER TABLE items DROP shade",
    "ALTER TABLE items ADD price numeric(10, 2)",
)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.scenario("54", "schema change in the middle of a transaction and a batch")
def test_columns_change_in_the_middle_and_after_a_kill(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part
) -> None:
    environ = environment(tmp_path, postgres, valkey, FAULTS_SINKS="handler,cache,file")
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        with Running(tmp_path, environ) as running:
            running.wait_for_streaming(connection)
            wait_until_known(running)
            insert(connection, 1, 200)
            # Rows of six shapes in one transaction: in one batch for each sink.
            with connection.transaction():
                for number, statement in enumerate(SHAPES):
                    connection.execute(statement.encode())
                    connection.execute("UPDATE items SET version = version + 1 WHERE id %% 5 = %s", [number])
            until(lambda: seen(running) >= 300, "delivery")
            os.kill(running.process.pid, signal.SIGKILL)
            running.wait()
        # Nobody applies any of it: the source is as its owner left it.
        query = "SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'items'::regclass"
        columns = connection.execute(f"{query} AND attnum > 0 AND NOT attisdropped".encode()).fetchone()
        with Running(tmp_path, environ) as running:
            running.wait_for_streaming(connection)
            wanted = ["column_retyped", "column_added"]
            took = noticed(tmp_path, environ, wanted)
            # What was told to need it: every row once more.
            connection.execute("UPDATE items SET version = version + 1")
            until(lambda: seen(running) >= 600, "delivery")
            until(lambda: cache_differences(connection, valkey.url, ["items"]) == 0, "the same in the cache")
            assert running.end() == 0
        assert connection.execute(f"{query} AND attnum > 0 AND NOT attisdropped".encode()).fetchone() == columns
        assert columns == (["id", "version", "note", "price"],)
        different = cache_differences(connection, valkey.url, ["items"])
    result.add(runs=1, lost=600 - distinct(tmp_path / "seen"), different=different, noticed_seconds_max=took)
