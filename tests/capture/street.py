"""The application that writes, and capture that listens, with all it says."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import psycopg

from backend_watcher.capture.logical import LogicalSource
from backend_watcher.capture.prepare import LogicalSettings
from backend_watcher.contracts import Journal
from backend_watcher.events.change import Change
from backend_watcher.events.position import parse_lsn
from backend_watcher.testing.chunks import read_all
from backend_watcher.testing.fakes import PATIENCE_SECONDS, RecordingObserver

NEVER = 3600.0
GLANCE_SECONDS = 0.02


async def eventually(condition: Callable[[], Awaitable[Any]], seconds: float = PATIENCE_SECONDS) -> Any:
    """Ask until the answer is true, and return it. Raises TimeoutError."""
    never = asyncio.Event()
    async with asyncio.timeout(seconds):
        while not (answer := await condition()):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GLANCE_SECONDS):
                    await never.wait()
    return answer


class App:
    """A connection of the application."""

    def __init__(self, dsn: str, connection: psycopg.AsyncConnection[Any]) -> None:
        self.dsn = dsn
        self.connection = connection

    @classmethod
    @asynccontextmanager
    async def connected(cls, dsn: str) -> AsyncIterator[App]:
        """Connect, and let go at the end."""
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            yield cls(dsn, connection)

    async def run(self, *statements: str) -> None:
        """Run each statement in a transaction of its own; one text with several is one transaction."""
        for statement in statements:
            await self.connection.execute(statement.encode())

    async def ask(self, query: str, *values: Any) -> Any:
        """Return the one value of a query, None where there is no row."""
        row = await (await self.connection.execute(query.encode(), values)).fetchone()
        return None if row is None else row[0]

    async def insert(self, *keys: int) -> None:
        """Insert products, one transaction each."""
        for key in keys:
            await self.run(f"INSERT INTO products VALUES ({key}, 'p{key}', {key})")

    async def lsn(self) -> int:
        """Return the end of the WAL."""
        return parse_lsn(await self.ask("SELECT pg_current_wal_lsn()::text"))

    async def confirmed(self, slot: str) -> int:
        """Return where a slot stands, 0 where it does not."""
        text = await self.ask("SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s", slot)
        return parse_lsn(text or "0/0")

    async def walsender(self, slot: str) -> int | None:
        """Return the process that serves a slot."""
        pid = await self.ask("SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", slot)
        return None if pid is None else int(pid)

    async def cut(self, slot: str) -> None:
        """End the walsender of a slot."""
        await self.ask("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s", slot)


class Street:
    """One source and its journal. `listening` runs it; afterwards it may be run again, as after a restart."""

    def __init__(self, dsn: str, journal: Journal, *tables: str) -> None:
        name = f"s_{secrets.token_hex(5)}"
        wished = tables or ("public.products",)
        self.settings = LogicalSettings(dsn, name, name, wished, heartbeat_seconds=NEVER, journal_name="j.db")
        self.journal = journal
        self.watch_seconds = NEVER
        self.observer = RecordingObserver()
        self.task: asyncio.Task[None] | None = None

    @property
    def slot(self) -> str:
        return self.settings.slot

    def change(self, **settings: Any) -> None:
        """Run with other settings from now on."""
        self.settings = replace(self.settings, **settings)

    def source(self) -> LogicalSource:
        return LogicalSource(self.settings, self.journal, self.observer, watch_seconds=self.watch_seconds)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Street]:
        """Run, and return when the stream has begun; at the end stop as a watcher that is told to."""
        self.observer = RecordingObserver()
        self.task = asyncio.create_task(self.source().run())
        try:
            await self.reach("streaming")
            yield self
        finally:
            task, self.task = self.task, None
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def reach(self, state: str, times: int = 1) -> None:
        """Return when the source said `state` that often; raises what ended it before."""
        assert self.task is not None
        said = asyncio.create_task(self.observer.wait_for(lambda: self.observer.states.count(state) >= times))
        await asyncio.wait([said, self.task], return_when=asyncio.FIRST_COMPLETED)
        if not said.done():
            said.cancel()
            await self.task
        await said

    async def failure(self) -> BaseException | None:
        """Return the error that ends the running source."""
        task, self.task = self.task, None
        assert task is not None
        try:
            await asyncio.wait([task], timeout=PATIENCE_SECONDS)
            assert task.done(), "the source goes on"
        finally:
            task.cancel()
        return task.exception()

    async def refusal(self) -> BaseException | None:
        """Run, and return the error that ends it."""
        self.observer = RecordingObserver()
        self.task = asyncio.create_task(self.source().run())
        return await self.failure()

    async def changes(self, count: int) -> list[Change]:
        """Return all changes of the journal when there are `count`; no more may come."""
        heard = asyncio.Event()
        loop = asyncio.get_running_loop()
        unlisten = self.journal.listen(lambda: loop.call_soon_threadsafe(heard.set))
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while len(changes := await read_all(self.journal)) < count:
                    await heard.wait()
                    heard.clear()
        finally:
            unlisten()
        assert len(changes) == count
        assert len({change.position for change in changes}) == count
        return changes

    async def keys(self, count: int) -> list[Any]:
        """Return the ids of all changes when there are `count`."""
        return [change.row["id"] for change in await self.changes(count)]
