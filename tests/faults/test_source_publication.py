"""The publication dropped, missing, made too late or made smaller: no row vanishes without a word."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres

from .judge import distinct
from .results import Part
from .running import SLOT, Running, environment, until
from .source import first_run, insert, refused, seen, stopped
from .workload import SCHEMA

INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
VERSIONS = [
    pytest.param(None, id="embedded"),
    *(
        pytest.param(binary.parents[1], id=f"installed {binary.parents[1].name}", marks=pytest.mark.servers)
        for binary in INSTALLED
    ),
]
P = SLOT
LOSSES = {
    "dropped": f"DROP PUBLICATION {P}",
    "dropped and made again": f"DROP PUBLICATION {P}; CREATE PUBLICATION {P} FOR TABLE items, checking, savings",
    "a table taken out": f"ALTER PUBLICATION {P} DROP TABLE items",
    "operations and back": (
        f"ALTER PUBLICATION {P} SET (publish = 'insert');"
        f" ALTER PUBLICATION {P} SET (publish = 'insert, update, delete, truncate')"
    ),
    "a row filter": f"ALTER PUBLICATION {P} SET TABLE items WHERE (id < 100), checking, savings",
}


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(install_dir=request.param) as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(SCHEMA)
        yield server


def change(connection: psycopg.Connection, statements: str) -> None:
    for statement in statements.split(";"):
        connection.execute(statement.encode())


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.scenario("33", "publication dropped, missing or late")
@pytest.mark.parametrize("server", VERSIONS, indirect=True)
@pytest.mark.parametrize("way", ["dropped", "a table taken out"])
@pytest.mark.parametrize("rows", [True, False], ids=["under load", "without any row"])
def test_taken_away_while_we_run(server: EmbeddedPostgres, tmp_path: Path, result: Part, way: str, rows: bool) -> None:
    environ = environment(tmp_path, server)
    with psycopg.connect(server.dsn, autocommit=True) as connection, Running(tmp_path, environ) as running:
        running.wait_for_streaming(connection)
        insert(connection, 1, 100)
        until(lambda: seen(running) >= 100, "delivery")
        change(connection, LOSSES[way])
        if rows:
            insert(connection, 101, 200)
        took = stopped(running, "publication")
    result.add(runs=1, noticed_seconds_max=took)
    assert distinct(tmp_path / "seen") == 100


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.scenario("33", "publication dropped, missing or late")
@pytest.mark.parametrize("server", VERSIONS, indirect=True)
def test_changed_while_we_are_down(server: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    for number, (way, statements) in enumerate(LOSSES.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        environ = environment(folder, server)
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("DELETE FROM items")
            first_run(folder, environ, connection)
            change(connection, statements)
            insert(connection, 101, 110)
            refused(folder, environ, "publication")
            until(lambda c=connection: drop(c), f"a free slot after {way}")
            connection.execute(f"DROP PUBLICATION IF EXISTS {P}".encode())
        shutil.rmtree(folder / ".watcher")
        result.add(runs=1)


def drop(connection: psycopg.Connection) -> bool:
    try:
        connection.execute("SELECT pg_drop_replication_slot(%s)", [SLOT])
    except psycopg.errors.ObjectInUse:
        return False
    return True


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.scenario("33", "publication dropped, missing or late")
@pytest.mark.parametrize("server", VERSIONS, indirect=True)
def test_made_after_the_slot(server: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    """A person made the slot first, and rows were written before the publication: those would vanish on 18."""
    environ = environment(tmp_path, server)
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [SLOT])
        insert(connection, 1, 10)
        connection.execute(f"CREATE PUBLICATION {P} FOR TABLE items, checking, savings".encode())
        with Running(tmp_path, environ, "", "--adopt-slot") as running:
            stopped(running, "cannot load the publication", within=30.0)
            assert seen(running) == 0
    result.add(runs=1)
