"""What a slot waits for is said while it waits; on a real server."""

from __future__ import annotations

import asyncio

import pytest

from backend_watcher.capture.slot_wait import WAITING
from backend_watcher.errors import SourceUnavailable
from backend_watcher.postgres import slots
from backend_watcher.postgres.connect import connect
from backend_watcher.postgres.slots import Blocker, ending
from backend_watcher.testing.fakes import SourceState

from .street import App, Street, eventually


def test_a_blocker_is_named_with_what_ends_it() -> None:
    session = Blocker(7, None, "app", "shop", 12.4)
    prepared = Blocker(None, "it's", None, None, None)
    assert str(session) == "pid 7 (app on shop, open for 12 s)"
    assert str(prepared) == '''prepared transaction "it's"'''
    assert ending([session, prepared]).endswith("SELECT pg_terminate_backend(7); ROLLBACK PREPARED 'it''s';")


async def test_it_is_told_once_what_is_waited_for(app: App, street: Street) -> None:
    async with App.connected(app.dsn) as other:
        await other.run("BEGIN", "CREATE TABLE open (id int)")
        street.task = asyncio.create_task(street.source().run())
        try:
            await street.observer.wait_for(lambda: WAITING in street.observer.states)
            (told,) = [one for one in street.observer.told if isinstance(one, SourceState) and one.state == WAITING]
            assert f"pid {other.connection.info.backend_pid}" in told.detail
            await other.run("COMMIT")
            await street.reach("streaming")
            assert street.observer.states.count(WAITING) == 1
        finally:
            street.task.cancel()
            await asyncio.wait([street.task])


async def test_nothing_is_left_when_it_is_cancelled(app: App, street: Street) -> None:
    async with App.connected(app.dsn) as other:
        await other.run("BEGIN", "CREATE TABLE open (id int)")
        task = asyncio.create_task(street.source().run())
        await eventually(lambda: app.ask("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", street.slot))
        task.cancel()
        await asyncio.wait([task])

        async def gone() -> bool:
            return await app.ask("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", street.slot) is None

        await eventually(gone)
        await other.run("ROLLBACK")


async def test_a_try_is_limited_and_names_them_too(app: App) -> None:
    async with App.connected(app.dsn) as other, await connect(app.dsn, purpose="test") as connection:
        await other.run("BEGIN", "CREATE TABLE open (id int)")
        with pytest.raises(SourceUnavailable, match=f"pid {other.connection.info.backend_pid}") as refused:
            await slots.create(connection, "never", timeout_seconds=0.2)
        assert "pg_terminate_backend" in refused.value.remedy
        await other.run("ROLLBACK")
