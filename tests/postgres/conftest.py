"""One server for all tests of the room, a database of its own for each test."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import quote as quote_url

import psycopg
import pytest
from psycopg import sql

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.postgres.connect import Connection, connect


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    """A server as it should be."""
    # Nothing here outlives a crash of the machine, so nothing needs to wait for the disk.
    settings = {"max_prepared_transactions": "5", "max_slot_wal_keep_size": "1GB", "fsync": "off"}
    with EmbeddedPostgres(settings=settings) as postgres:
        yield postgres


@pytest.fixture
def dsn(server: EmbeddedPostgres) -> Iterator[str]:
    """A database of its own, and its owner's DSN; slots and roles made in it are gone afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        roles = {row[0] for row in admin.execute("SELECT rolname FROM pg_roles")}
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield f"{server.dsn.rpartition('/')[0]}/{name}"
        # With a time limit it waits until they are gone, and their slots free.
        admin.execute("SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots WHERE active")
        for (slot,) in admin.execute("SELECT slot_name FROM pg_replication_slots WHERE active_pid IS NULL").fetchall():
            admin.execute("SELECT pg_drop_replication_slot(%s)", [slot])
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        for (role,) in admin.execute("SELECT rolname FROM pg_roles").fetchall():
            if role not in roles:
                admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.fixture
async def conn(dsn: str) -> AsyncIterator[Connection]:
    """A connection of ours to the test's database, as superuser."""
    async with await connect(dsn, purpose="test") as connection:
        yield connection


async def make(conn: Connection, *statements: str) -> None:
    """Run statements; names in them resolve in `public`."""
    await conn.execute("SET search_path = public, pg_catalog")
    for statement in statements:
        await conn.execute(statement.encode())
    await conn.execute("SET search_path = pg_catalog")


async def make_role(conn: Connection, dsn: str, attributes: str = "REPLICATION", name: str = "watcher") -> str:
    """Make a role with a password and return the DSN it connects with."""
    password = secrets.token_urlsafe(12)
    statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} " + attributes)  # type: ignore[arg-type]
    await conn.execute(statement.format(sql.Identifier(name), sql.Literal(password)))
    address = dsn.rpartition("@")[2]
    return f"postgresql://{quote_url(name, safe='')}:{password}@{address}"


@asynccontextmanager
async def reading(
    dsn: str, slot: str, publication: str, application_name: str = "backend_watcher:capture"
) -> AsyncIterator[int]:
    """Read from a slot as a watcher does, and say which process serves it."""
    walsender = await psycopg.AsyncConnection.connect(
        dsn, autocommit=True, replication="database", application_name=application_name
    )
    try:
        start = f"START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', publication_names '\"{publication}\"')"
        await walsender.execute(start.encode())
        yield walsender.info.backend_pid
    finally:
        # Not `async with`: a session that streams cannot be committed.
        await walsender.close()
