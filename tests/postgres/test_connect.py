"""Sessions that are all alike, and refusals that never show a password."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import traceback

import pytest

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.errors import ConfigError, SourceRefused, SourceUnavailable, WatcherError
from backend_watcher.postgres.connect import Connection, address_of, answering, connect, refuses_sessions
from backend_watcher.postgres.refusal import SHUTDOWN_SECONDS
from backend_watcher.postgres.translate import translating

from .conftest import make_role

CANARY = "canary4f1d"


async def _setting(conn: Connection, name: str) -> str:
    row = await (await conn.execute("SELECT current_setting(%s)", [name])).fetchone()
    assert row is not None
    return str(row[0])


async def test_every_session_reads_the_same_text(dsn: str, conn: Connection) -> None:
    role = await make_role(conn, dsn, "")
    for setting, value in {
        "DateStyle": "German",
        "IntervalStyle": "iso_8601",
        "TimeZone": "Asia/Jakarta",
        "extra_float_digits": "-5",
        "bytea_output": "escape",
        "search_path": "public",
        "quote_all_identifiers": "on",
        "array_nulls": "off",
        "client_encoding": "LATIN1",
        "statement_timeout": "7",
        "default_transaction_read_only": "on",
    }.items():
        await conn.execute(f"ALTER ROLE watcher SET {setting} = '{value}'".encode())
    async with await connect(role, purpose="texts") as watcher:
        assert await _setting(watcher, "DateStyle") == "ISO, YMD"
        assert await _setting(watcher, "IntervalStyle") == "postgres"
        assert await _setting(watcher, "TimeZone") == "UTC"
        assert await _setting(watcher, "extra_float_digits") == "3"
        assert await _setting(watcher, "bytea_output") == "hex"
        assert await _setting(watcher, "lc_monetary") == "C"
        assert await _setting(watcher, "search_path") == "pg_catalog"
        assert await _setting(watcher, "quote_all_identifiers") == "off"
        assert await _setting(watcher, "array_nulls") == "on"
        assert await _setting(watcher, "client_encoding") == "UTF8"
        assert await _setting(watcher, "statement_timeout") == "30s"
        assert await _setting(watcher, "lock_timeout") == "2s"
        assert await _setting(watcher, "row_security") == "off"
        assert await _setting(watcher, "default_transaction_read_only") == "off"
        assert await _setting(watcher, "application_name") == "backend_watcher:texts"
        assert watcher.autocommit


async def test_a_replication_session_reads_the_same_and_waits_without_limit(dsn: str) -> None:
    async with await connect(dsn, purpose="capture", replication=True) as walsender:
        for setting, value in {"DateStyle": "ISO, YMD", "statement_timeout": "0", "TimeZone": "UTC"}.items():
            row = await (await walsender.execute(f"SHOW {setting}".encode())).fetchone()
            assert row == (value,)
        row = await (await walsender.execute("IDENTIFY_SYSTEM")).fetchone()
        assert row is not None
        assert row[3] == dsn.rpartition("/")[2]


async def test_a_read_only_session_changes_nothing(dsn: str) -> None:
    async with await connect(dsn, purpose="check", read_only=True) as watcher:
        assert await _setting(watcher, "default_transaction_read_only") == "on"


async def test_what_the_dsn_asks_for_stays_unless_it_contradicts_us(dsn: str) -> None:
    asked = f"{dsn}?application_name=mine&options=-c%20work_mem%3D77MB%20-c%20DateStyle%3DGerman&replication=true"
    async with await connect(asked, purpose="test") as watcher:
        assert await _setting(watcher, "work_mem") == "77MB"
        assert await _setting(watcher, "DateStyle") == "ISO, YMD"
        assert await _setting(watcher, "application_name") == "backend_watcher:test"
        assert watcher.info.get_parameters()["connect_timeout"] == "10"
    async with await connect(f"{dsn}?connect_timeout=3", purpose="test") as watcher:
        assert watcher.info.get_parameters()["connect_timeout"] == "3"
        assert watcher.info.get_parameters()["keepalives_idle"] == "10"


def _with(dsn: str, *, user: str = "postgres", password: str = CANARY, database: str | None = None) -> str:
    address, _, there = dsn.rpartition("@")[2].partition("/")
    return f"postgresql://{user}:{password}@{address}/{database or there}"


async def _refused(dsn: str, *, replication: bool = False) -> WatcherError:
    with pytest.raises(WatcherError) as caught:
        await connect(dsn, purpose="test", replication=replication)
    told = "".join(traceback.format_exception(caught.value)) + caught.value.remedy
    assert CANARY not in told
    assert "\n" not in caught.value.message
    return caught.value


async def test_a_wrong_password_is_refused(dsn: str) -> None:
    error = await _refused(_with(dsn))
    assert isinstance(error, SourceRefused)
    assert "refuses role 'postgres'" in error.message
    assert "password" in error.remedy


async def test_a_missing_password_is_refused(dsn: str) -> None:
    error = await _refused(_with(dsn).replace(f":{CANARY}", ""))
    assert isinstance(error, SourceRefused)


async def test_a_missing_role_is_refused(dsn: str) -> None:
    assert isinstance(await _refused(_with(dsn, user="nobody")), SourceRefused)


async def test_a_missing_database_is_refused(server: EmbeddedPostgres) -> None:
    error = await _refused(_with(server.dsn, password=server.password, database="nonesuch"))
    assert isinstance(error, SourceRefused)
    assert "nonesuch" in error.message
    assert "database" in error.remedy


async def test_a_role_that_may_not_enter_is_refused(dsn: str, conn: Connection) -> None:
    role = await make_role(conn, dsn, "")
    database = dsn.rpartition("/")[2]
    await conn.execute(f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC".encode())
    assert isinstance(await _refused(role), SourceRefused)


async def test_a_role_without_replication_gets_no_walsender(dsn: str, conn: Connection) -> None:
    role = await make_role(conn, dsn, "")
    error = await _refused(role, replication=True)
    assert isinstance(error, SourceRefused)
    assert "watcher check" in error.remedy


async def test_a_full_server_is_worth_another_try(dsn: str, conn: Connection) -> None:
    role = await make_role(conn, dsn, "CONNECTION LIMIT 0")
    error = await _refused(role)
    assert isinstance(error, SourceUnavailable)
    assert "too many connections" in error.message


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost:1", "no-such-host.invalid:5432"])
async def test_a_server_that_is_not_there_is_worth_another_try(host: str) -> None:
    error = await _refused(f"postgresql://postgres:{CANARY}@{host}/shop")
    assert isinstance(error, SourceUnavailable)
    assert f"PostgreSQL at {host} does not answer" in error.message


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "  ",
        CANARY,
        f"postgresql://u:{CANARY}@{CANARY}@127.0.0.1:1/shop",
        f"postgresql://u:{CANARY}/{CANARY}@127.0.0.1:1/shop",
        f"postgresql://u:1/{CANARY}@127.0.0.1:1/shop",
        f"postgresql://u:{CANARY}%@127.0.0.1:1/shop",
        f"postgresql://u:{CANARY}@127.0.0.1:port/shop",
        f"postgresql://u:{CANARY}@127.0.0.1:1/shop?{CANARY}=1",
        f"postgresql://u:{CANARY}\0@127.0.0.1:1/shop",
        f"host=127.0.0.1 password={CANARY} {CANARY}",
        f"mysql://u:{CANARY}@127.0.0.1/shop",
    ],
)
async def test_a_dsn_that_cannot_be_read_is_not_quoted(wrong: str) -> None:
    assert isinstance(await _refused(wrong), ConfigError)


async def test_a_dsn_of_another_library_is_explained() -> None:
    error = await _refused(f"postgresql+asyncpg://u:{CANARY}@127.0.0.1/shop")
    assert "names a Python driver" in error.message
    error = await _refused(f"postgresql://u:{CANARY}@127.0.0.1/shop?pgbouncer=true")
    assert "'pgbouncer'" in error.message


def test_an_address_names_neither_role_nor_password() -> None:
    assert address_of(f"postgresql://u:{CANARY}@db.example:6432/shop") == "db.example:6432/shop"


async def test_what_is_not_answered_in_time_is_a_lost_connection(conn: Connection) -> None:
    with answering(conn, 60.0):
        await conn.execute("SELECT pg_sleep(0)")
    begun = time.monotonic()
    with pytest.raises(SourceUnavailable, match="is lost"), translating(), answering(conn, 0.2):
        await conn.execute("SELECT pg_sleep(20)")
    assert time.monotonic() - begun < 10
    with pytest.raises(SourceUnavailable), translating(), answering(conn, 0.01):
        await conn.execute("SELECT 1")


async def test_a_server_that_takes_sessions_and_one_that_is_not_there(dsn: str) -> None:
    assert not await refuses_sessions(dsn)
    assert not await refuses_sessions(f"postgresql://postgres:{CANARY}@127.0.0.1:1/shop")
    assert not await refuses_sessions(dsn.replace("://postgres:", "://nobody:"))


async def test_a_server_in_a_smart_shutdown_refuses_sessions() -> None:
    with EmbeddedPostgres() as own:
        async with await connect(own.dsn, purpose="stays") as stays:
            assert not await refuses_sessions(own.dsn)
            os.kill(own.pid, signal.SIGTERM)
            async with asyncio.timeout(10):
                while not await refuses_sessions(own.dsn):
                    await stays.execute("SELECT 1")
            error = await _refused(own.dsn)
            assert isinstance(error, SourceUnavailable)
            assert error.after_seconds == SHUTDOWN_SECONDS


async def test_where_no_text_is_checked_a_stream_takes_any(server: EmbeddedPostgres, conn: Connection) -> None:
    await conn.execute("CREATE DATABASE unchecked ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    dsn = f"{server.dsn.rpartition('/')[0]}/unchecked"
    try:
        async with await connect(dsn, purpose="test", replication=True) as walsender:
            assert walsender.info.parameter_status("client_encoding") == "SQL_ASCII"
            row = await (await walsender.execute("IDENTIFY_SYSTEM")).fetchone()
            assert row is not None
            assert row[3] == "unchecked"
            row = await (await walsender.execute(b"SELECT E'caf\\351'::text")).fetchone()
            assert row == ("caf\udce9",)
        async with await connect(dsn, purpose="test") as other:
            assert other.info.parameter_status("client_encoding") == "UTF8"
    finally:
        await conn.execute("DROP DATABASE unchecked WITH (FORCE)")
