"""
Compares a table in ranges, by digests that both servers make themselves.

The source digests a range under one snapshot, then the sink the same keys. What is equal then is equal as an entry is
that was read and found equal: the sink held exactly the rows that the source had at that snapshot. What is not equal
may only move, and is for `verify.py` to read and to look at again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from backend_watcher.errors import SourceUnavailable
from backend_watcher.reconcile.bisect import (
    PART_ROWS,
    RANGE_ROWS_MAX,
    Pace,
    Part,
    Span,
    bounds_of,
    differing,
    ended,
    equal,
    parts_of,
)
from backend_watcher.reconcile.source import Source, SourceTable
from backend_watcher.verifiable import Bound, Digesting

UNKNOWN = (-1, 0)
"""In the place of a digest that the sink could not make in time: nothing is equal to it."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A range: how many rows of it are equal, with their sum, and the keys that have to be read."""

    rows: int
    total: int
    spans: Sequence[Span]


class Ranges:
    """The ranges of a table, one after the other. Raises SourceError, SinkError."""

    def __init__(
        self, source: Source, sink: Digesting, table: SourceTable, span_rows_max: int, rows_max: int = RANGE_ROWS_MAX
    ) -> None:
        self._source = source
        self._sink = sink
        self._table = table
        self._span_rows_max = span_rows_max
        self._pace = Pace(rows_max)

    async def each(self) -> AsyncGenerator[Compared]:
        """
        Compare range after range, in the order of the key; to be closed where it is not read to its end.

        Where all is calm the source digests a range while the sink does the one before. The source is asked nothing
        by us while a range with spans is in the caller's hands.
        """
        ahead: asyncio.Task[list[Part]] | None = None
        parts = await self._parts(())
        calm = True
        try:
            while True:
                after = parts[-1].high
                if calm and not ended(parts):
                    ahead = asyncio.create_task(self._parts(after))
                there = await self._there(parts)
                rows, total = equal(parts, there)
                spans = differing(parts, there, self._span_rows_max)
                calm = not spans
                if spans and ahead is not None:
                    await asyncio.wait([ahead])
                yield Compared(rows, total, spans)
                if ended(parts):
                    return
                parts = await ahead if ahead is not None else await self._parts(after)
                ahead = None
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)

    async def _parts(self, low: Bound) -> list[Part]:
        while True:
            asked, begun = self._pace.rows, time.monotonic()
            found = await self._source.digests(self._table, low, asked, PART_ROWS)
            if found is not None:
                self._pace.took(sum(rows for rows, _, _ in found), time.monotonic() - begun)
                return parts_of(low, found, asked)
            if not self._pace.was_too_long():
                raise SourceUnavailable(
                    f"{asked} rows of {self._table.shape.full_name} take longer than we may ask for"
                )

    async def _there(self, parts: Sequence[Part]) -> list[tuple[int, int]]:
        """Ask the sink; in halves, where it would take too long."""
        key = self._table.read.key
        begun = time.monotonic()
        found = await self._sink.digests(self._table.shape, key, bounds_of(parts))
        if found:
            self._pace.took(sum(part.rows for part in parts), time.monotonic() - begun)
            return [*found]
        if len(parts) == 1:
            # More rows than the source has there, by far.
            return [UNKNOWN]
        self._pace.was_too_long()
        middle = len(parts) // 2
        return [*await self._there(parts[:middle]), *await self._there(parts[middle:])]
