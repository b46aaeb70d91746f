"""Slots made, watched, lost and dropped on a server."""

from __future__ import annotations

import asyncio

import pytest

from backend_watcher.errors import ConfigError, SourceRefused, SourceUnavailable
from backend_watcher.postgres import catalog, slots
from backend_watcher.postgres.connect import Connection, connect

from .conftest import make, make_role, reading


async def test_created_looked_at_and_dropped(dsn: str, conn: Connection) -> None:
    assert await slots.look(conn, "shop") is None
    assert await slots.wal_held_bytes(conn, "shop") is None
    before = (await catalog.server(conn)).flush_lsn
    consistent = await slots.create(conn, "shop")
    facts = await slots.look(conn, "shop")
    assert facts is not None
    assert (facts.name, facts.type, facts.plugin, facts.database) == (
        "shop",
        "logical",
        "pgoutput",
        dsn.rpartition("/")[2],
    )
    assert consistent == facts.confirmed_flush_lsn
    assert consistent >= before
    assert (facts.active, facts.temporary, facts.two_phase, facts.failover) == (False, False, False, False)
    assert facts.wal_status == "reserved"
    assert facts.safe_wal_size_bytes is not None
    assert not facts.is_lost

    held = await slots.wal_held_bytes(conn, "shop")
    assert held == facts.wal_held_bytes
    await make(conn, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")
    later = await slots.wal_held_bytes(conn, "shop")
    assert held is not None
    assert later is not None
    assert later > held

    with pytest.raises(SourceRefused, match="42710"):
        await slots.create(conn, "shop")
    assert await slots.drop(conn, "shop")
    assert not await slots.drop(conn, "shop")
    assert await slots.look(conn, "shop") is None


async def test_a_failover_slot_where_the_server_has_them(conn: Connection) -> None:
    if conn.info.server_version < 170_000:
        with pytest.raises(SourceRefused, match="no failover slots"):
            await slots.create(conn, "shop", True)
    else:
        await slots.create(conn, "shop", failover=True)
        facts = await slots.look(conn, "shop")
        assert facts is not None
        assert facts.failover


async def test_who_a_new_slot_waits_for_is_named_and_nothing_is_left(dsn: str, conn: Connection) -> None:
    await make(conn, "CREATE TABLE t (id int)")
    async with await connect(dsn, purpose="blocker") as blocker, blocker.transaction():
        await blocker.execute("INSERT INTO public.t VALUES (1)")
        with pytest.raises(SourceUnavailable, match=f"pid {blocker.info.backend_pid} ") as caught:
            await slots.create(conn, "shop", timeout_seconds=0.2)
        assert f"pg_terminate_backend({blocker.info.backend_pid})" in caught.value.remedy
        assert await slots.look(conn, "shop") is None
    # The session's own limit is back, and the slot can be made now.
    row = await (await conn.execute("SELECT current_setting('statement_timeout')")).fetchone()
    assert row == ("30s",)
    await slots.create(conn, "shop")


async def test_a_prepared_transaction_is_named_too(dsn: str, conn: Connection) -> None:
    await make(conn, "CREATE TABLE t (id int)", "BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'forgotten'")
    try:
        with pytest.raises(SourceUnavailable, match="prepared transaction 'forgotten'"):
            await slots.create(conn, "shop", timeout_seconds=0.2)
    finally:
        await conn.execute("ROLLBACK PREPARED 'forgotten'")


async def test_a_role_with_few_rights_learns_the_pid_all_the_same(dsn: str, conn: Connection) -> None:
    role = await make_role(conn, dsn)
    await make(conn, "CREATE TABLE t (id int)")
    async with await connect(role, purpose="test") as watcher, conn.transaction():
        await conn.execute("INSERT INTO public.t VALUES (1)")
        with pytest.raises(SourceUnavailable, match=f"pid {conn.info.backend_pid}"):
            await slots.create(watcher, "shop", timeout_seconds=0.2)


async def test_a_cancelled_creation_leaves_nothing(dsn: str, conn: Connection) -> None:
    await make(conn, "CREATE TABLE t (id int)")
    async with await connect(dsn, purpose="blocker") as blocker, blocker.transaction():
        await blocker.execute("INSERT INTO public.t VALUES (1)")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await slots.create(conn, "shop")
        assert await slots.look(conn, "shop") is None


@pytest.mark.parametrize("name", ["Shop", "a b", "'; DROP TABLE x;--", "", "é"])
async def test_a_hostile_slot_name_never_reaches_the_server(conn: Connection, name: str) -> None:
    with pytest.raises(ConfigError):
        await slots.create(conn, name)
    with pytest.raises(ConfigError):
        await slots.drop(conn, name)


async def test_who_reads_is_seen(dsn: str, conn: Connection) -> None:
    await make(conn, "CREATE PUBLICATION p")
    await slots.create(conn, "shop")
    async with reading(dsn, "shop", "p") as pid:
        facts = await slots.look(conn, "shop")
        assert facts is not None
        assert (facts.active, facts.active_pid) == (True, pid)
        (reader,) = await slots.walsenders(conn, application_name="backend_watcher:capture")
        assert (reader.pid, reader.sync_state, reader.is_synchronous) == (pid, "async", False)
        assert await slots.walsenders(conn, pid=pid) == await slots.walsenders(conn)
        assert await slots.walsenders(conn, application_name="nobody") == ()
        with pytest.raises(SourceUnavailable, match="55006"):
            await slots.drop(conn, "shop")


async def test_a_role_with_few_rights_does_not_see_its_sync_state(dsn: str, conn: Connection) -> None:
    """A limit of PostgreSQL that `walsenders` documents; if this fails, there is one limit less."""
    role = await make_role(conn, dsn)
    await make(conn, "CREATE PUBLICATION p")
    async with await connect(role, purpose="test") as watcher:
        await slots.create(watcher, "shop")
        async with reading(role, "shop", "p") as pid:
            (reader,) = await slots.walsenders(watcher, pid=pid)
            assert (reader.application_name, reader.sync_state) == ("backend_watcher:capture", None)


async def test_a_full_server_says_so(conn: Connection) -> None:
    most = (await catalog.server(conn)).max_replication_slots
    for number in range(most):
        await slots.create(conn, f"slot_{number}")
    with pytest.raises(SourceRefused, match="53400") as caught:
        await slots.create(conn, "one_more")
    assert "max_replication_slots" in caught.value.remedy


async def test_a_lost_slot_is_known_as_lost(conn: Connection) -> None:
    await slots.create(conn, "shop")
    await make(conn, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", "CREATE TABLE t (id int)")
    try:
        await conn.execute("SELECT pg_reload_conf()")
        for _ in range(30):
            for _ in range(3):
                await make(conn, "INSERT INTO t VALUES (1)", "SELECT pg_switch_wal()")
            await conn.execute("CHECKPOINT")
            facts = await slots.look(conn, "shop")
            assert facts is not None
            if facts.is_lost:
                break
        assert facts.is_lost
        assert facts.wal_status == "lost"
        assert await slots.wal_held_bytes(conn, "shop") is None
    finally:
        await conn.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        await conn.execute("SELECT pg_reload_conf()")


async def test_only_the_reader_that_is_meant_is_ended(conn: Connection, dsn: str) -> None:
    await make(conn, "CREATE PUBLICATION p")
    await slots.create(conn, "read_by_us")
    async with reading(dsn, "read_by_us", "p") as pid:
        await slots.end_reader(conn, "read_by_us", pid + 1)
        await slots.end_reader(conn, "other", pid)
        facts = await slots.look(conn, "read_by_us")
        assert facts is not None
        assert facts.active_pid == pid
        await slots.end_reader(conn, "read_by_us", pid)
        async with asyncio.timeout(20):
            while (facts := await slots.look(conn, "read_by_us")) is not None and facts.active:
                pass
