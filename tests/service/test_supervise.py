"""The whole watcher in this process, on a real PostgreSQL: starts in street order, drains, and starts again."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import psycopg
import pytest

from backend_watcher import Change, Message, SchemaChange, Watcher
from backend_watcher.capture.logical import LogicalSource
from backend_watcher.capture.schema_watch import SHAPES
from backend_watcher.context import attach_context_async
from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.errors import JournalLocked, JournalLost, SinkUnavailable, SlotLost
from backend_watcher.journal.sqlite import SqliteJournal
from backend_watcher.service import supervise as supervise_module
from backend_watcher.service.config import Config, WebConfig, load_config
from backend_watcher.service.control import open_journal, status
from backend_watcher.service.supervise import supervise
from backend_watcher.sinks.memory import Memory
from backend_watcher.testing.fakes import PATIENCE_SECONDS

TABLE = "CREATE TABLE products (id int PRIMARY KEY, stock int NOT NULL)"


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres() as server:
        yield server


@pytest.fixture
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[psycopg.AsyncConnection]:
    """A connection to the database, with an empty table and no slot; its DSN is `database.info.dsn`'s server's."""
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as connection:
        await connection.execute(TABLE)
        yield connection
        await connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        await connection.execute("DROP PUBLICATION IF EXISTS watcher_shop")
        await connection.execute("DROP TABLE products")


@pytest.fixture
def config(postgres: EmbeddedPostgres, tmp_path: Path) -> Config:
    environ = {"WATCHER_SOURCE__DSN": postgres.dsn, "WATCHER_JOURNAL__PATH": str(tmp_path / "shop.journal")}
    return load_config(None, environ, watcher=Watcher("shop"))


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def count(database: psycopg.AsyncConnection, what: str) -> int:
    cursor = await database.execute(f"SELECT count(*) FROM {what}")
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def streaming(database: psycopg.AsyncConnection, running: asyncio.Task[int]) -> None:
    """Wait until the watcher streams."""
    while not await count(database, "pg_stat_replication WHERE state = 'streaming'"):
        assert not running.done(), running.result()


async def test_delivers_drains_and_goes_on_without_repeating(database: psycopg.AsyncConnection, config: Config) -> None:
    seen: list[int] = []
    for first in (0, 3):
        watcher, arrived = Watcher("shop"), asyncio.Event()

        @watcher.on("products", concurrency=1)
        async def note(change: Change, arrived: asyncio.Event = arrived) -> None:
            seen.append(change.new["id"])
            arrived.set()

        running = asyncio.create_task(supervise(config, watcher))
        await streaming(database, running)
        # The second start finds what was committed while nobody ran.
        rows = "INSERT INTO products SELECT i, 7 FROM generate_series(%s::int, %s) i"
        await database.execute(rows, (first, first + 1))
        await arrived.wait()
        while len(seen) < first + 2 - (first > 0):
            await asyncio.sleep(0)
        stop()
        assert await running == 0
        await database.execute("INSERT INTO products VALUES (%s, 7)", (first + 2,))
    assert seen == [0, 1, 2, 3, 4]


async def test_messages_alone_and_what_is_said_of_transactions(
    database: psycopg.AsyncConnection, config: Config
) -> None:
    heard: asyncio.Queue[tuple[str, object]] = asyncio.Queue()
    watcher, loop = Watcher("shop"), asyncio.get_running_loop()

    @watcher.on_message("shop.sold")
    async def sold(message: Message) -> None:
        loop.call_soon_threadsafe(heard.put_nowait, (message.text, dict(message.context)))

    running = asyncio.create_task(supervise(config, watcher))
    await streaming(database, running)
    async with database.transaction():
        await attach_context_async(database, user="ann")
        await database.execute("SELECT pg_logical_emit_message(true, 'shop.sold', 'pen')")
        await database.execute("SELECT pg_logical_emit_message(true, 'shop.else', 'no')")
    await database.execute("SELECT pg_logical_emit_message(true, 'shop.sold', 'cup')")
    assert [await heard.get(), await heard.get()] == [("pen", {"user": "ann"}), ("cup", {})]
    stop()
    assert await running == 0


async def asked(port: int, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    return int(answer.split(" ", 2)[1]), answer


async def test_it_answers_over_http_while_it_runs(database: psycopg.AsyncConnection, config: Config) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    watcher = Watcher("shop")
    watcher.to(Memory(), table="products", name="memory")
    running = asyncio.create_task(supervise(replace(config, web=WebConfig("127.0.0.1", port)), watcher))
    await streaming(database, running)
    await database.execute("INSERT INTO products SELECT i, 7 FROM generate_series(1, 5) i")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while 'watcher_delivered_changes_total{subscription="memory"} 5.0' not in (await asked(port, "/metrics"))[1]:
            assert not running.done(), running.result()
        while (await asked(port, "/readyz"))[0] != 200:
            assert not running.done(), running.result()
        # What is durable follows a moment later, and the cursor after it.
        wanted = ("watcher_journal_blocks 1.0", 'watcher_lag_bytes{subscription="memory"} 0.0')
        text = ""
        while not all(line in text for line in wanted):
            assert not running.done(), running.result()
            text = (await asked(port, "/metrics"))[1]
    assert "watcher_source_streaming 1.0" in text
    stop()
    assert await running == 0
    with pytest.raises(OSError, match="Connect call failed"):
        await asked(port, "/livez")


async def test_functions_are_told_of_schema_changes(
    database: psycopg.AsyncConnection, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise_module, "LogicalSource", partial(LogicalSource, watch_seconds=0.05))
    watcher, told = Watcher("shop"), asyncio.Event()
    watcher.to(Memory(), table="products")
    taken: list[SchemaChange] = []
    loop = asyncio.get_running_loop()

    @watcher.on_schema_change
    def note(change: SchemaChange) -> None:
        assert threading.current_thread().name != "capture"
        taken.append(change)
        loop.call_soon_threadsafe(told.set)

    running = asyncio.create_task(supervise(config, watcher))
    await streaming(database, running)
    while not noted(config):
        assert not running.done(), running.result()
        await asyncio.sleep(0)
    await database.execute("ALTER TABLE products ADD colour text DEFAULT 'red'")
    await asyncio.wait_for(told.wait(), PATIENCE_SECONDS)
    shown = (await status(config)).schema_changes
    stop()
    assert await running == 0
    assert list(shown) == taken
    assert [(one.kind, one.table, one.needs_reread) for one in taken] == [("column_added", "public.products", True)]


def noted(config: Config) -> bool:
    with open_journal(config) as view:
        return SHAPES in view.notes()


async def test_a_sink_that_is_down_at_the_first_start_leaves_no_trace(
    database: psycopg.AsyncConnection, config: Config
) -> None:
    class Down(Memory):
        async def open(self) -> None:
            raise SinkUnavailable("nobody answers")

    watcher = Watcher("shop")
    watcher.to(Down(), table="products")
    with pytest.raises(SinkUnavailable):
        await supervise(config, watcher)
    assert await count(database, "pg_replication_slots") == 0


async def test_a_second_instance_is_refused(database: psycopg.AsyncConnection, config: Config) -> None:
    watcher = Watcher("shop")
    watcher.to(Memory(), table="products")
    journal = SqliteJournal(config.journal.path)
    await journal.open()
    try:
        with pytest.raises(JournalLocked):
            await supervise(config, watcher)
    finally:
        await journal.close()


async def test_a_lost_journal_and_a_lost_slot_stop_the_start(database: psycopg.AsyncConnection, config: Config) -> None:
    watcher = Watcher("shop")
    watcher.to(Memory(), table="products")
    running = asyncio.create_task(supervise(config, watcher))
    await streaming(database, running)
    stop()
    assert await running == 0
    kept = config.journal.path.rename(config.journal.path.with_suffix(".kept"))
    with pytest.raises(JournalLost):
        await supervise(config, watcher)
    config.journal.path.unlink()
    kept.rename(config.journal.path)
    await database.execute("SELECT pg_drop_replication_slot('watcher_shop')")
    with pytest.raises(SlotLost):
        await supervise(config, watcher)
