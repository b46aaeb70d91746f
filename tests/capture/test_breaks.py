"""The server stops, crashes, or takes us for a standby; each test has a server of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.errors import BecameSynchronous
from backend_watcher.events.position import START, Position
from backend_watcher.journal import MemoryJournal
from backend_watcher.testing.chunks import read_all

from .street import App, Street, eventually

CREATE = "CREATE TABLE products (id bigint PRIMARY KEY, name text, stock int)"
SHUTDOWN_SECONDS_MAX = 10.0
"""Far less than the embedded server waits before it uses force, with room for a slow machine."""


@pytest.fixture
async def street(own_server: EmbeddedPostgres) -> AsyncIterator[Street]:
    journal = MemoryJournal()
    await journal.open()
    async with App.connected(own_server.dsn) as app:
        await app.run(CREATE)
    yield Street(own_server.dsn, journal)
    await journal.close()


async def insert(server: EmbeddedPostgres, *keys: int) -> None:
    async with App.connected(server.dsn) as app:
        await app.insert(*keys)


async def test_a_fast_shutdown_does_not_wait_for_us(own_server: EmbeddedPostgres, street: Street) -> None:
    async with street.listening():
        await insert(own_server, 1)
        begun = time.monotonic()
        await asyncio.to_thread(own_server.restart, "fast")
        assert time.monotonic() - begun < SHUTDOWN_SECONDS_MAX
        await insert(own_server, 2)
        assert await street.keys(2) == [1, 2]
        assert street.observer.states.count("streaming") == 2


@pytest.mark.parametrize("rows", [1, 20_000])
async def test_a_fast_shutdown_does_not_wait_for_a_journal_that_stands_still(
    own_server: EmbeddedPostgres, street: Street, rows: int
) -> None:
    # With many rows not even reading goes on: the quota is reached.
    street.journal = journal = MemoryJournal(quota_bytes=2000)
    await journal.open()
    journal.save_cursor("slow", START)
    async with street.listening():
        journal.hold()
        async with App.connected(own_server.dsn) as app:
            await app.run(f"INSERT INTO products SELECT g, repeat('x', 200) FROM generate_series(1, {rows}) g")
        await street.observer.wait_for(lambda: len(street.observer.told) > 2)
        begun = time.monotonic()
        await asyncio.to_thread(own_server.restart, "fast")
        assert time.monotonic() - begun < SHUTDOWN_SECONDS_MAX
        journal.save_cursor("slow", Position(1 << 60, 0))
        journal.release()
        await insert(own_server, rows + 1)
        await eventually(lambda: arrived(street, rows + 1))


async def arrived(street: Street, key: int) -> bool:
    changes = await read_all(street.journal)
    return bool(changes) and changes[-1].key == (key,)


async def test_after_a_crash_of_the_server_nothing_comes_twice(own_server: EmbeddedPostgres, street: Street) -> None:
    async with street.listening():
        for round_number in range(2):
            await insert(own_server, *range(10 * round_number, 10 * round_number + 10))
            await street.changes(10 * round_number + 10)
            await asyncio.to_thread(own_server.kill)
            await street.reach("waiting", round_number + 1)
            await asyncio.to_thread(own_server.start)
        await insert(own_server, 20)
        assert await street.keys(21) == list(range(21))


async def test_made_a_synchronous_standby_it_leaves_at_once(own_server: EmbeddedPostgres, street: Street) -> None:
    street.watch_seconds = 0.05
    async with App.connected(own_server.dsn) as app:
        async with street.listening():
            await app.run("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
            error = await street.failure()
        assert isinstance(error, BecameSynchronous)
        assert "sync" in error.message
        await eventually(lambda: app.ask("SELECT count(*) = 0 FROM pg_stat_replication"))
