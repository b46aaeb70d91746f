"""Functions are told of schema changes: in order, at least once, again after a failure, and not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from backend_watcher.capture.schema import Noticed
from backend_watcher.capture.schema_notes import add_changes
from backend_watcher.events.schema_change import SchemaChange
from backend_watcher.journal import MemoryJournal
from backend_watcher.service import announce
from backend_watcher.service.announce import CALLS_MAX, TOLD, Announcer
from backend_watcher.testing.fakes import PATIENCE_SECONDS, OwnedClock


@pytest.fixture
async def journal() -> AsyncIterator[MemoryJournal]:
    journal = MemoryJournal()
    await journal.open()
    yield journal
    await journal.close()


def noticed(number: int) -> Noticed:
    return Noticed("rewritten", "public.a", f"was rewritten {number}", True, "rows differ", "Read them again.")


@asynccontextmanager
async def announcing(journal: MemoryJournal, *functions: Callable[[SchemaChange], Any]) -> AsyncIterator[Announcer]:
    announcer = Announcer(journal, functions, OwnedClock(free_running=True))
    task = asyncio.create_task(announcer.run())
    try:
        yield announcer
    finally:
        task.cancel()
        await asyncio.wait([task])


class Calls:
    """What a function was called with; it fails the first `failing` times."""

    def __init__(self, failing: int = 0) -> None:
        self.failing = failing
        self.numbers: list[int] = []
        self.news = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    async def take(self, change: SchemaChange) -> None:
        self.plain(change)

    def plain(self, change: SchemaChange) -> None:
        self.numbers.append(change.number)
        self.loop.call_soon_threadsafe(self.news.set)
        if len(self.numbers) <= self.failing:
            raise ValueError("not now")

    async def until(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.numbers) < count:
                await self.news.wait()
                self.news.clear()


async def told(journal: MemoryJournal, number: int) -> None:
    heard = asyncio.Event()
    loop = asyncio.get_running_loop()
    unlisten = journal.listen(lambda: loop.call_soon_threadsafe(heard.set))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await journal.get_note(TOLD) != str(number):
            await heard.wait()
            heard.clear()
    unlisten()


async def test_what_is_there_is_told_and_what_comes(journal: MemoryJournal) -> None:
    await add_changes(journal, [noticed(1), noticed(2)])
    one, other = Calls(), Calls()
    async with announcing(journal, one.take, other.plain) as announcer:
        await other.until(2)
        await add_changes(journal, [noticed(3)])
        announcer.wake()
        await other.until(3)
        await told(journal, 3)
    assert one.numbers == other.numbers == [1, 2, 3]
    # After a restart only what is new.
    again = Calls()
    await add_changes(journal, [noticed(4)])
    async with announcing(journal, again.take):
        await told(journal, 4)
    assert again.numbers == [4]


async def test_a_failing_function_is_called_again_and_the_next_change_waits(journal: MemoryJournal) -> None:
    await add_changes(journal, [noticed(1), noticed(2)])
    calls = Calls(failing=2)
    async with announcing(journal, calls.take):
        await told(journal, 2)
    assert calls.numbers == [1, 1, 1, 2]


async def test_it_is_not_called_for_ever_and_that_is_said(journal: MemoryJournal) -> None:
    await add_changes(journal, [noticed(1), noticed(2)])
    calls = Calls(failing=CALLS_MAX)
    with capture_logs() as logs:
        async with announcing(journal, calls.plain):
            await told(journal, 2)
    assert calls.numbers == [1] * CALLS_MAX + [2]
    (error,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert (error["number"], error["function"]) == (1, "plain")


async def test_what_was_not_finished_is_told_again(journal: MemoryJournal) -> None:
    await add_changes(journal, [noticed(1)])
    begun, never = asyncio.Event(), asyncio.Event()

    async def hang(change: SchemaChange) -> None:
        begun.set()
        await never.wait()

    async with announcing(journal, hang):
        await asyncio.wait_for(begun.wait(), PATIENCE_SECONDS)
    calls = Calls()
    async with announcing(journal, calls.take):
        await told(journal, 1)
    assert calls.numbers == [1]


async def test_a_call_that_hangs_has_failed(journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announce, "CALL_SECONDS_MAX", 0.01)
    await add_changes(journal, [noticed(1)])

    async def hang(change: SchemaChange) -> None:
        await asyncio.Event().wait()

    with capture_logs() as logs:
        async with announcing(journal, hang):
            await told(journal, 1)
    assert [entry["error"] for entry in logs if entry["log_level"] == "warning"] == ["TimeoutError"] * CALLS_MAX


async def test_without_functions_nothing_runs(journal: MemoryJournal) -> None:
    announcer = Announcer(journal, (), OwnedClock())
    announcer.wake()
    await asyncio.wait_for(announcer.run(), PATIENCE_SECONDS)
