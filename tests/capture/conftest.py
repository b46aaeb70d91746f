"""What the capture tests share: a server, a database and a slot of its own for each test, a journal, a seed."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from psycopg import sql

from backend_watcher import probes
from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.journal import MemoryJournal

from .street import App, Street


@pytest.fixture
def dice() -> random.Random:
    """Random numbers that `TEST_SEED` repeats."""
    seed = int(os.environ.get("TEST_SEED") or secrets.randbits(32))
    print(f"TEST_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(autouse=True)
def no_probes() -> Iterator[None]:
    yield
    probes.disarm()


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    """A server that no test stops or configures."""
    with EmbeddedPostgres() as postgres:
        yield postgres


@pytest.fixture
def own_server() -> Iterator[EmbeddedPostgres]:
    """A server that this test may stop, kill and configure."""
    with EmbeddedPostgres() as postgres:
        yield postgres


@pytest.fixture
async def journal() -> AsyncIterator[MemoryJournal]:
    journal = MemoryJournal()
    await journal.open()
    yield journal
    await journal.close()


@pytest.fixture
async def app(server: EmbeddedPostgres) -> AsyncIterator[App]:
    """The application's own connection, to a database with the table `products`; its slot is gone afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        async with App.connected(f"{server.dsn.rpartition('/')[0]}/{name}") as app:
            await app.run("CREATE TABLE products (id bigint PRIMARY KEY, name text, stock int)")
            yield app
        ours = "FROM pg_replication_slots WHERE database = %s"
        admin.execute(f"SELECT pg_terminate_backend(active_pid, 10000) {ours} AND active", [name])
        admin.execute(f"SELECT pg_drop_replication_slot(slot_name) {ours}", [name])
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def street(app: App, journal: MemoryJournal) -> Street:
    """Capture from the test's database into its journal; not started."""
    return Street(app.dsn, journal)
