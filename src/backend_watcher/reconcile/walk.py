"""
Follows what is written while a table is compared slowly, so that a new entry is not taken for one without a row.

A verification that is over in minutes asks the journal at its end. One that takes hours cannot: so the journal is read
along with the rows, a piece at a time, and of what it shows only the names are kept. An entry that something touched
since the beginning is not judged; the next scan does that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from backend_watcher.events.change import Change
from backend_watcher.reconcile.follow import Follower
from backend_watcher.reconcile.plan import Suspect
from backend_watcher.reconcile.report import TableResult
from backend_watcher.reconcile.source import SourceTable

STEP_BYTES_MAX = 32 << 20
"""How much may have been written since the last step: with more it is not followed any longer."""

LATER_MAX = 200_000
"""Names that are touched while the sink is asked for its own."""

PAGE_SECONDS, STEP_SECONDS = 0.02, 1.0
"""How long is waited between two pages of the sink's names, and how often is looked what was written."""

TOO_MUCH = "too much was written meanwhile to tell them from new ones"


class Walk:
    """What the journal shows of a table from the beginning of its scan to `end_lsn`; `lost` says why it ends there."""

    def __init__(
        self, follower: Follower, table: SourceTable, touches: Callable[[Change], Sequence[bytes]], begun_lsn: int
    ) -> None:
        self._follower = follower
        self._table = table
        self._touches = touches
        self._stepped = time.monotonic()
        self.end_lsn = begun_lsn
        self.later: set[bytes] = set()
        self.lost = ""

    async def step(self, lsn: int, add: Callable[[Iterable[bytes]], None]) -> None:
        """Add the names of what was touched before an LSN."""
        if self.lost or lsn <= self.end_lsn:
            return
        if lsn - self.end_lsn > STEP_BYTES_MAX:
            self.lost = TOO_MUCH
            return
        await self._follower.captured(lsn)
        touched = self._follower.touched(self.end_lsn, lsn, self._follower.oldest(), self._table, self._touches)
        if touched is None or len(self.later) > LATER_MAX:
            self.lost = TOO_MUCH
            return
        add(touched.names)
        self.end_lsn = lsn
        self._stepped = time.monotonic()

    async def pause(self, mark: Callable[[], Awaitable[int]]) -> None:
        """Wait a little between two pages of names, and step from time to time."""
        await asyncio.sleep(PAGE_SECONDS)
        if time.monotonic() - self._stepped >= STEP_SECONDS:
            await self.step(await mark(), self.later.update)

    def take_out(self, strays: dict[bytes, Suspect], result: TableResult) -> None:
        """Leave out entries that were touched meanwhile, all of them where that is not known."""
        for name in strays.keys() & self.later:
            del strays[name]
        if self.lost and not result.extras_unknown:
            strays.clear()
            result.extras_unknown = self.lost
