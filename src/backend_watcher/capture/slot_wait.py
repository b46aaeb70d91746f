"""
Creating the slot, and saying meanwhile what it waits for.

PostgreSQL makes a slot only when every transaction that writes just now has ended, in any database of the cluster. Each
try is limited in time, so that a half-made slot keeps no WAL; between two there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from backend_watcher.errors import WatcherError
from backend_watcher.postgres import slots
from backend_watcher.postgres.connect import Connection, connect

WAITING = "creating_slot"
"""The state of a source whose slot waits."""

LOOK_SECONDS = 1.0
"""Between two looks at what it waits for, and before the first."""

Tell = Callable[[str, str], None]


async def create_slot(connection: Connection, dsn: str, name: str, *, failover: bool, tell: Tell) -> int:
    """Create a slot and return its consistent point; `tell` hears what it waits for. Raises as `slots.create`."""
    telling = asyncio.create_task(_tell(dsn, name, tell))
    try:
        return await slots.create(connection, name, failover=failover)
    finally:
        telling.cancel()
        with contextlib.suppress(asyncio.CancelledError, WatcherError):
            await telling


async def _tell(dsn: str, name: str, tell: Tell) -> None:
    await asyncio.sleep(LOOK_SECONDS)
    told: frozenset[str] = frozenset()
    async with await connect(dsn, purpose="waiting", read_only=True) as connection:
        while True:
            blockers = await slots.blockers(connection)
            # Their ages grow all the time; who they are is news.
            now = frozenset(blocker.who for blocker in blockers)
            if now and now != told:
                told = now
                tell(WAITING, f"slot {name!r} waits for {', '.join(map(str, blockers))}; {slots.ending(blockers)}")
            await asyncio.sleep(LOOK_SECONDS)
