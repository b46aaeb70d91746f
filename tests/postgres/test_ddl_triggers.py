"""Event triggers that tell of DDL: what they write, that they harm nobody, and what is said where they may not be."""

from __future__ import annotations

import json

import psycopg
import pytest
from psycopg import sql

from backend_watcher.postgres import catalog, ddl_triggers, preflight
from backend_watcher.postgres.connect import Connection, connect
from backend_watcher.postgres.ddl_triggers import PREFIX, are_there, install
from backend_watcher.postgres.findings import Level

from .conftest import make, make_role

SLOT = "ddl_slot"
PEEK = (
    "SELECT data FROM pg_logical_slot_get_binary_changes("
    "'ddl_slot', NULL, NULL, 'proto_version', '1', 'publication_names', 'p', 'messages', 'true')"
)


@pytest.fixture
async def told(conn: Connection) -> Connection:
    """A database with a table, the triggers, and a slot that sees messages from here on."""
    await make(conn, "CREATE TABLE t (id int PRIMARY KEY)", "CREATE PUBLICATION p FOR TABLE t")
    assert await install(conn) is None
    await conn.execute("SELECT pg_create_logical_replication_slot('ddl_slot', 'pgoutput')")
    return conn


async def messages(conn: Connection) -> list[dict[str, object]]:
    """Read what our triggers wrote since the last call."""
    rows = await (await conn.execute(PEEK)).fetchall()
    found = []
    for (data,) in rows:
        if bytes(data[:1]) == b"M" and f"{PREFIX}\0".encode() in bytes(data):
            assert data[1] == 1, "not transactional"
            _, _, content = bytes(data).partition(f"{PREFIX}\0".encode())
            found.append(json.loads(content[4:]))
    return found


async def test_ddl_without_any_row_writes_a_message(told: Connection) -> None:
    for statement, tag, name in (
        ("ALTER TABLE t ADD n int DEFAULT 5", "ALTER TABLE", "public.t"),
        ("ALTER TABLE t ALTER n TYPE bigint", "ALTER TABLE", "public.t"),
        ("CREATE TYPE mood AS ENUM ('good')", "CREATE TYPE", "public.mood"),
        ("ALTER TYPE mood ADD VALUE 'bad'", "ALTER TYPE", "public.mood"),
        ("ALTER PUBLICATION p SET (publish = 'insert')", "ALTER PUBLICATION", "p"),
        ("DROP TABLE t", "DROP TABLE", "public.t"),
    ):
        await make(told, statement)
        found = await messages(told)
        assert found, statement
        assert found[0]["tag"] == tag
        assert {"name": name} in [{"name": one["name"]} for one in found[0]["objects"]]  # type: ignore[attr-defined]


async def test_what_is_rolled_back_or_temporary_writes_none(told: Connection) -> None:
    await make(
        told,
        *("BEGIN", "ALTER TABLE t ADD n int", "ROLLBACK"),
        *("CREATE TEMP TABLE mine (id int)", "ALTER TABLE mine ADD n int", "DROP TABLE mine"),
        "INSERT INTO t VALUES (1)",
    )
    assert await messages(told) == []


async def test_a_failure_inside_never_fails_the_statement(told: Connection) -> None:
    rename = "ALTER FUNCTION pg_catalog.{}(boolean, text, text, boolean) RENAME TO {}"
    await told.execute(rename.format("pg_logical_emit_message", "gone").encode())
    await make(told, "ALTER TABLE t ADD n int", "DROP TABLE t", "CREATE TABLE t (id int PRIMARY KEY)")
    assert await messages(told) == []
    await told.execute(rename.format("gone", "pg_logical_emit_message").encode())
    await make(told, "ALTER TABLE t ADD m int")
    assert [one["tag"] for one in await messages(told)] == ["ALTER FUNCTION", "ALTER TABLE"]


async def test_who_may_do_little_is_told_of_and_not_hindered(told: Connection, dsn: str) -> None:
    address = await make_role(told, dsn, "", "app")
    await make(told, "GRANT CREATE ON SCHEMA public TO app")
    assert [one["tag"] for one in await messages(told)] == ["GRANT"]
    async with await psycopg.AsyncConnection.connect(address, autocommit=True) as app:
        # With a search_path of its own that would catch what is not fixed in the function.
        await app.execute("CREATE TEMP TABLE pg_event_trigger_ddl_commands (id int)")
        await app.execute("SET search_path = pg_temp, public, pg_catalog")
        await app.execute("CREATE TABLE public.theirs (id int)")
    assert [one["tag"] for one in await messages(told)] == ["CREATE TABLE"]


async def test_installing_is_done_once_and_taken_away_with_one_statement(conn: Connection) -> None:
    assert not await are_there(conn)
    assert await install(conn) is None
    oids = await (await conn.execute("SELECT oid FROM pg_event_trigger ORDER BY 1")).fetchall()
    assert await install(conn) is None
    assert await (await conn.execute("SELECT oid FROM pg_event_trigger ORDER BY 1")).fetchall() == oids
    # One that somebody disabled is not there; making it again is what was asked for.
    await conn.execute("ALTER EVENT TRIGGER watcher_ddl_end DISABLE")
    assert not await are_there(conn)
    assert await install(conn) is None
    assert await are_there(conn)
    assert "DROP FUNCTION watcher.tell_ddl() CASCADE;" in ddl_triggers.script()
    await conn.execute("DROP FUNCTION watcher.tell_ddl() CASCADE")
    assert not await are_there(conn)


async def test_a_role_without_the_right_is_refused_and_nothing_is_left(conn: Connection, dsn: str) -> None:
    address = await make_role(conn, dsn)
    await conn.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO watcher").format(sql.Identifier(conn.info.dbname)))
    async with await connect(address, purpose="test") as weak:
        refused = await install(weak)
    assert refused is not None
    assert "event trigger" in refused
    assert await (await conn.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'watcher'")).fetchone() is None


async def test_check_says_how_schema_changes_are_noticed(conn: Connection, dsn: str) -> None:
    await make(conn, "CREATE TABLE t (id int PRIMARY KEY)")
    address = await make_role(conn, dsn)

    async def said(of: str, wish: ddl_triggers.DdlTriggers) -> tuple[Level, str]:
        report = await preflight.check(of, slot="s", publication="p", tables={}, ddl_triggers=wish)
        (finding,) = [one for one in report.findings if one.code == "ddl_triggers"]
        return finding.level, str(finding)

    level, text = await said(dsn, "off")
    assert (level, "by a look every few seconds" in text, 'source.ddl_triggers = "auto"' in text) == (
        Level.OK,
        True,
        True,
    )
    level, text = await said(address, "auto")
    assert (level, "may not make event triggers" in text, "watcher schema triggers" in text) == (
        Level.WARNING,
        True,
        True,
    )
    assert (await said(dsn, "auto"))[1].endswith("they are made")
    await install(conn)
    for of in (dsn, address):
        assert await said(of, "off") == (Level.OK, "event triggers tell of schema changes at once")
    assert (await catalog.server(conn)).is_superuser
