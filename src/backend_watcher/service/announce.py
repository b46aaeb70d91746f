"""
Tells the user's functions of schema changes: in order, at least once, each within its time and a few times at most.

How far they were told is kept with the journal. A change that a function did not take in the end stays open in
`watcher status` like every other; the next one is told all the same.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from backend_watcher.capture.schema_notes import load_changes
from backend_watcher.contracts import Clock, Journal
from backend_watcher.errors import JournalError, in_one_line
from backend_watcher.events.schema_change import SchemaChange
from backend_watcher.threads import set_threadsafe

log = structlog.get_logger("watcher")

TOLD = "schema_told"
"""The note that holds the number of the last change that the functions were told of."""

CALLS_MAX = 5
CALL_SECONDS_MAX = 30.0
PAUSE_SECONDS = 1.0
"""After the first failure; doubled after each other one."""


class Announcer:
    """`run` tells of what is there, and then of each change that it is woken for. Ends at once without functions."""

    def __init__(self, journal: Journal, functions: Sequence[Callable[[SchemaChange], Any]], clock: Clock) -> None:
        self._journal = journal
        self._functions = tuple(functions)
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Look for changes now. From any thread; does not wait."""
        if self._loop is not None:
            set_threadsafe(self._loop, self._news)

    async def run(self) -> None:
        """Tell until cancelled, in the loop of the caller."""
        if not self._functions:
            return
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                self._news.clear()
                await self._tell()
                await self._news.wait()
        except JournalError as error:
            # Whoever writes to it ends the process; here there is nothing more to tell of.
            log.warning("functions are told of no more schema changes", error=in_one_line(error))

    async def _tell(self) -> None:
        note = await self._journal.get_note(TOLD)
        told = int(note) if note and note.isdecimal() else 0
        for change in await load_changes(self._journal, after=told):
            for function in self._functions:
                await self._call(function, change)
            await self._journal.set_note(TOLD, str(change.number))

    async def _call(self, function: Callable[[SchemaChange], Any], change: SchemaChange) -> None:
        name = getattr(function, "__name__", type(function).__name__)
        for attempt in range(1, CALLS_MAX + 1):
            try:
                async with asyncio.timeout(CALL_SECONDS_MAX):
                    if inspect.iscoroutinefunction(function):
                        await function(change)
                    else:
                        await asyncio.to_thread(function, change)
            except Exception as error:  # noqa: BLE001 whatever a function of the user's raises
                again = PAUSE_SECONDS * 2 ** (attempt - 1) if attempt < CALLS_MAX else None
                log.warning(
                    "a function failed to take a schema change",
                    function=name,
                    number=change.number,
                    error=in_one_line(error),
                    attempt=attempt,
                    again_in_seconds=again,
                )
                if again is not None:
                    await self._clock.sleep(again)
            else:
                return
        log.error(
            "a function was not told of a schema change",
            function=name,
            number=change.number,
            table=change.table,
            remedy="Mend the function; `watcher schema list` shows what it has missed.",
        )
