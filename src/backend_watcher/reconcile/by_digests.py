"""
Verifies a table of which both sides sum up their rows: only what differs is read.

A digest says what is equal, and nothing else. The rows of a part that is not equal are read on both sides and compared
as all rows are, entry by entry; what differs then is looked at again by the rules of `plan.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from backend_watcher.events.change import Change
from backend_watcher.postgres.reading import Asked
from backend_watcher.reconcile.bisect import RANGE_ROWS_MAX, Span
from backend_watcher.reconcile.digest import NameSet
from backend_watcher.reconcile.plan import ENTRIES_MAX, Suspect
from backend_watcher.reconcile.ranges import Ranges
from backend_watcher.reconcile.report import Range, TableResult
from backend_watcher.reconcile.source import Source, SourceTable
from backend_watcher.verifiable import Digesting, Verifiable

SETTLE_SECONDS = 30.0
"""How long what differs may wait for the next look, which is taken at all that there is."""


@dataclass(frozen=True, slots=True)
class Steps:
    """
    What a verification does with rows and entries of a table.

    `compare` takes rows, counts the entries that are equal into a range, adds all names to a set, and returns the
    others. `look_again` settles entries: what differs and stands still is drift.
    """

    compare: Callable[[Sequence[Change], Range, NameSet], Awaitable[list[Suspect]]]
    look_again: Callable[[Sequence[Suspect], Range], Awaitable[object]]


@dataclass(slots=True)
class ByDigests:
    """One table; `rate` is in rows a second."""

    source: Source
    sink: Digesting
    table: SourceTable
    result: TableResult
    steps: Steps
    chunk_rows: int
    rate: float | None
    _wrong: list[Suspect] = field(default_factory=list)
    _looked: float = field(default_factory=time.monotonic)

    async def run(self) -> None:
        """Compare range after range, and read the parts that differ. Raises SourceError, SinkError."""
        self.result.by_digests = True
        rows_max = int(self.rate) if self.rate else RANGE_ROWS_MAX
        begun = time.monotonic()
        ranges = Ranges(self.source, self.sink, self.table, self.chunk_rows, rows_max)
        async with contextlib.aclosing(ranges.each()) as every:
            async for compared in every:
                one = Range(compared.rows)
                one.source.take(compared.rows, compared.total)
                one.sink.take(compared.rows, compared.total)
                for span in compared.spans:
                    await self._read(span, one)
                    if len(self._wrong) >= ENTRIES_MAX or time.monotonic() - self._looked > SETTLE_SECONDS:
                        await self._settle()
                    if self.result.full:
                        break
                if one.rows:
                    self.result.took(one)
                if self.result.full:
                    return
                if self.rate:
                    await asyncio.sleep(max(0.0, one.rows / self.rate - (time.monotonic() - begun)))
                begun = time.monotonic()
        await self._settle()

    async def _read(self, span: Span, one: Range) -> None:
        """Read both sides of some keys, and note what differs."""
        seen = NameSet()
        after, more = span.low, True
        while more:
            rows = await self.source.read(self.table, Asked(upto=span.high), after, self.chunk_rows)
            self._wrong += await self.steps.compare(rows.changes, one, seen)
            one.rows += len(rows.changes)
            self.result.read_again += len(rows.changes)
            after, more = rows.after, rows.more
        await self._strangers(span, seen)

    async def _strangers(self, span: Span, seen: NameSet) -> None:
        """Ask the sink for its names there, and note those that no row had; by them rows are looked for once more."""
        low, more = span.low, True
        while more and not self.result.full:
            names, low = await self.sink.names_between(self.table.shape, self.table.read.key, low, span.high)
            more = low != ()
            self._wrong += [Suspect(name, {key}) for name, key in names if name not in seen]
            if len(self._wrong) >= ENTRIES_MAX:
                await self._settle()

    async def _settle(self) -> None:
        """
        Look again at what differed some time ago, all of it together: what moves all the time is waited for once.

        What came since needs not be known. A look sees what was committed before it began, and asks the journal for
        the rest; and which row an entry is of does not change, because its name is the key.
        """
        wrong, self._wrong, self._looked = self._wrong, [], time.monotonic()
        if wrong:
            one = Range(0)
            await self.steps.look_again(wrong, one)
            self.result.source.join(one.source)
            self.result.sink.join(one.sink)


async def can_digest(source: Source, sink: Verifiable, table: SourceTable) -> bool:
    """Say whether source and sink make the same digests of the rows of a table."""
    if not isinstance(sink, Digesting):
        return False
    way = await source.digest_way(table)
    return way != "" and way == await sink.digest_way(table.shape, table.read.key)
