"""What an application says of its transaction, through every driver, as PostgreSQL's own decoder sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import asyncpg
import django
import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from backend_watcher.context import BYTES_MAX, PREFIX, attach_context, attach_context_async, context_sql
from backend_watcher.decode import messages
from backend_watcher.embedded import EmbeddedPostgres

ODD = "O'Brien \\ % %s :name ? $1 $$ ü 🚀 \" \n"
SAID = {"user": ODD, "request_id": 7, "tags": ["a", None, True]}


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres() as postgres:
        yield postgres


@pytest.fixture
def heard(server: EmbeddedPostgres) -> Iterator[Any]:
    """Returns what committed transactions said since the last call."""
    with psycopg.connect(server.dsn, autocommit=True) as reader:
        reader.execute("SELECT pg_create_logical_replication_slot('heard', 'test_decoding')")

        def hear() -> list[Any]:
            query = "SELECT data FROM pg_logical_slot_get_changes('heard', NULL, NULL)"
            lines = [data for (data,) in reader.execute(query) if data.startswith("message:")]
            assert all(f"prefix: {PREFIX}," in line for line in lines)
            return [json.loads(line.partition(" content:")[2]) for line in lines]

        yield hear
        reader.execute("SELECT pg_drop_replication_slot('heard')")


def url(server: EmbeddedPostgres, driver: str) -> str:
    return server.dsn.replace("postgresql://", f"postgresql+{driver}://")


def test_the_watcher_reads_what_this_writes() -> None:
    assert (PREFIX, BYTES_MAX) == (messages.CONTEXT, messages.CONTEXT_BYTES_MAX)


def test_psycopg(server: EmbeddedPostgres, heard: Any) -> None:
    with psycopg.connect(server.dsn) as connection:
        attach_context(connection, **SAID)
        connection.rollback()
        attach_context(connection, **SAID)
        connection.commit()
        with connection.cursor() as cursor:
            attach_context(cursor, user="ann")
    assert heard() == [SAID, {"user": "ann"}]


@pytest.mark.parametrize("conforming", ["on", "off"])
def test_however_the_server_reads_its_texts(server: EmbeddedPostgres, heard: Any, conforming: str) -> None:
    with psycopg.connect(server.dsn, options=f"-c standard_conforming_strings={conforming}") as connection:
        attach_context(connection, **SAID)
    assert heard() == [SAID]


def test_sqlalchemy(server: EmbeddedPostgres, heard: Any) -> None:
    engine = sqlalchemy.create_engine(url(server, "psycopg"))
    with engine.begin() as connection:
        attach_context(connection, **SAID)
    with Session(engine) as session, session.begin():
        attach_context(session, user="ann")
    engine.dispose()
    assert heard() == [SAID, {"user": "ann"}]


def test_django(server: EmbeddedPostgres, heard: Any) -> None:
    from django.conf import settings as django_settings
    from django.db.backends.postgresql.base import DatabaseWrapper
    from django.db.utils import ConnectionHandler

    django_settings.configure(USE_TZ=True)
    django.setup()
    parts = psycopg.conninfo.conninfo_to_dict(server.dsn)
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    settings = {ours: parts.get(theirs, "") for ours, theirs in names.items()}
    handler = ConnectionHandler({"default": {"ENGINE": "django.db.backends.postgresql", **settings}})
    connection = DatabaseWrapper(handler.configure_settings(handler.settings)["default"])
    connection.set_autocommit(False)
    attach_context(connection, **SAID)
    connection.commit()
    connection.close()
    assert heard() == [SAID]


async def test_asyncpg(server: EmbeddedPostgres, heard: Any) -> None:
    connection = await asyncpg.connect(server.dsn)
    async with connection.transaction():
        await attach_context_async(connection, **SAID)
    await connection.close()
    assert heard() == [SAID]


async def test_psycopg_async(server: EmbeddedPostgres, heard: Any) -> None:
    async with await psycopg.AsyncConnection.connect(server.dsn) as connection:
        await attach_context_async(connection, **SAID)
    assert heard() == [SAID]


async def test_sqlalchemy_async(server: EmbeddedPostgres, heard: Any) -> None:
    engine = create_async_engine(url(server, "asyncpg"))
    async with engine.begin() as connection:
        await attach_context_async(connection, **SAID)
    async with AsyncSession(engine) as session, session.begin():
        await attach_context_async(session, user="ann")
    await engine.dispose()
    assert heard() == [SAID, {"user": "ann"}]


def test_what_cannot_be_said() -> None:
    with pytest.raises(ValueError, match="more than 8192"):
        context_sql(text="x" * 8192)
    with pytest.raises(TypeError):
        context_sql(user=object())
    with pytest.raises(ValueError, match="JSON"):
        context_sql(share=float("nan"))
