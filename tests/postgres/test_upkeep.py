"""What a running stream asks now and then."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from backend_watcher.errors import SourceUnavailable
from backend_watcher.postgres import catalog, slots
from backend_watcher.postgres.connect import Connection, connect
from backend_watcher.postgres.upkeep import HEARTBEAT_PREFIX, check_alive, emit_heartbeat, existing_tables

from .conftest import make

PATIENCE_SECONDS = 20.0


async def test_a_heartbeat_is_a_commit_that_a_slot_sees(conn: Connection) -> None:
    await slots.create(conn, "heard")
    await emit_heartbeat(conn)
    cursor = await conn.execute(
        "SELECT data FROM pg_logical_slot_get_binary_changes('heard', NULL, NULL,"
        " 'proto_version', '1', 'publication_names', 'none', 'messages', 'true')"
    )
    kinds = [bytes(row[0]) for row in await cursor.fetchall()]
    assert [kind[:1] for kind in kinds] == [b"B", b"M", b"C"]
    assert HEARTBEAT_PREFIX.encode() in kinds[1]


async def test_only_tables_that_exist_are_named(conn: Connection) -> None:
    await make(conn, "CREATE TABLE b (id int)", 'CREATE TABLE "A.x" (id int)', "CREATE TABLE gone (id int)")
    found = await catalog.tables(conn, ["b", '"A.x"', "gone"])
    oids = [table.oid for table in found.values()]
    await make(conn, "DROP TABLE gone")
    assert await existing_tables(conn, oids) == ('public."A.x"', "public.b")
    assert await existing_tables(conn, []) == ()


async def test_a_session_that_lives_is_not_asked(conn: Connection) -> None:
    async def queries() -> object:
        cursor = await conn.execute("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
        return await cursor.fetchone()

    before = conn.info.backend_pid
    for _ in range(100):
        await check_alive(conn)
    assert conn.info.backend_pid == before
    assert await queries() is not None
    await check_alive(conn)


async def test_a_session_that_the_server_ended_is_noticed(conn: Connection, dsn: str) -> None:
    other = await connect(dsn, purpose="test")
    await check_alive(other)
    await conn.execute("SELECT pg_terminate_backend(%s, 10000)", [other.info.backend_pid])
    error = await noticed(other)
    assert "terminating connection" in error.message or "lost" in error.message
    with pytest.raises(SourceUnavailable):
        await check_alive(other)
    await other.close()
    with pytest.raises(SourceUnavailable, match="closed"):
        await check_alive(other)


async def noticed(conn: Connection) -> SourceUnavailable:
    """Look until the end of a session has arrived here."""
    never = asyncio.Event()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                await check_alive(conn)
            except SourceUnavailable as error:
                return error
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    await never.wait()
