"""
Compares all rows of subscriptions with their sinks, slowly, again and again: one table at a time over all of them.

What is found stands in a note of the journal, table by table, so that a restart goes on with the next one. Where one
side does not answer it is tried again; nothing here ever stops delivery.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backend_watcher.contracts import Journal
from backend_watcher.delivery.subscription import Start
from backend_watcher.errors import ConfigError, SourceError, WatcherError, in_one_line
from backend_watcher.reconcile.by_digests import can_digest
from backend_watcher.reconcile.compare import Kind
from backend_watcher.reconcile.follow import Follower, JournalFile
from backend_watcher.reconcile.report import Answer
from backend_watcher.reconcile.rounds import (
    EXTRAS_ROWS_MAX,
    Outcome,
    Scans,
    chunk_rows,
    dump,
    load,
    note_name,
    outcome_of,
    pace,
)
from backend_watcher.reconcile.source import Source
from backend_watcher.service.config import SourceConfig
from backend_watcher.service.readable import Readable, tables_of
from backend_watcher.service.sources import reading_source
from backend_watcher.verifiable import ProofObserver, Verifiable

POLL_SECONDS_MAX = 60.0
"""The longest wait before the clock is looked at again: it may have been set."""

BEGIN_SECONDS = 1.0
RETRY_SECONDS = 60.0
TRIES_MAX = 5
"""How often a table is tried before the scan goes on without it."""

PAUSE_SECONDS = 0.2
"""Between two tables, so that many small ones are no burst."""

ROWS_OF_A_PAGE = 40
"""What a page is taken for where a table was never analysed."""


@dataclass(frozen=True, slots=True)
class _Extent:
    """How many rows all tables of a subscription have, about, and how many tables share each space of names."""

    rows: int
    scopes: Counter[str]


class Scanner:
    """Scans the subscriptions that ask for it."""

    def __init__(
        self,
        readables: Sequence[Readable],
        source: SourceConfig,
        view: JournalFile,
        journal: Journal,
        observer: ProofObserver,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._readables = {one.name: one for one in readables}
        self._config = source
        self._view = view
        self._journal = journal
        self._observer = observer
        self._wall = wall
        self._scans: dict[str, Scans] = {}
        self._again_at: dict[str, float] = {}
        self._tries: Counter[str] = Counter()

    async def run(self) -> None:
        """Scan until cancelled. Raises JournalError."""
        while await self._journal.identity() is None:  # noqa: ASYNC110 nobody tells of it
            # The very first start: nothing is published yet.
            await asyncio.sleep(BEGIN_SECONDS)
        for name in self._readables:
            self._scans[name] = load(await self._journal.get_note(note_name(name)))
        while True:
            name = min(self._readables, key=self._due_at)
            wait = self._due_at(name) - self._wall()
            if wait > 0:
                await asyncio.sleep(min(wait, POLL_SECONDS_MAX))
            else:
                await self._scan(self._readables[name])

    def _due_at(self, name: str) -> float:
        period = self._readables[name].subscription.options.verify_every_seconds
        return max(self._scans[name].due_at(period), self._again_at.get(name, 0.0))

    async def _scan(self, readable: Readable) -> None:
        """Scan what is left of a subscription's tables."""
        name, scans = readable.name, self._scans[readable.name]
        source, sink = reading_source(self._config), readable.reader()
        tables = tables_of(readable.subscription)
        extent: _Extent | None = None
        try:
            while (table := scans.next_table(tables, self._wall())) is not None:
                await self._keep(name)
                outcome: Outcome | None
                try:
                    await sink.open_to_read()
                    extent = extent or await self._extent(source, sink, tables)
                    outcome = await self._table(readable, source, sink, table, extent)
                except WatcherError as error:
                    outcome = self._failed(name, table, error)
                if outcome is not None:
                    self._take(name, table, outcome)
                await self._keep(name)
                if outcome is None:
                    return
                await asyncio.sleep(PAUSE_SECONDS)
        finally:
            await source.close()
            await sink.close()
        await self._keep(name)
        assert scans.last is not None
        self._observer.verified(name, scans.last.verdict, scans.last.words)

    def _take(self, name: str, table: str, outcome: Outcome) -> None:
        now = self._scans[name].now
        assert now is not None
        now.tables[table], now.error = outcome, ""
        self._tries[name] = 0

    def _failed(self, name: str, table: str, error: WatcherError) -> Outcome | None:
        """Say what is kept of a table that could not be scanned, None where it is to be tried again."""
        said = in_one_line(error)
        self._tries[name] += 1
        if isinstance(error, ConfigError) or self._tries[name] >= TRIES_MAX:
            return Outcome(str(Answer.PARTIAL), self._wall(), notes=[said])
        now = self._scans[name].now
        assert now is not None
        now.error = f"{table}: {said}"
        self._again_at[name] = self._wall() + RETRY_SECONDS
        return None

    async def _extent(self, source: Source, sink: Verifiable, tables: Sequence[str]) -> _Extent:
        rows, scopes = 0, Counter[str]()
        for name in tables:
            try:
                table = await source.table(name)
            except (ConfigError, SourceError):
                continue  # it is said when its turn comes
            pages = sum(leaf.pages for leaf in table.read.leaves)
            rows += table.read.estimated_rows or pages * ROWS_OF_A_PAGE
            scopes[sink.scope(table.shape)] += 1
        return _Extent(rows, scopes)

    async def _table(
        self, readable: Readable, source: Source, sink: Verifiable, table: str, extent: _Extent
    ) -> Outcome:
        options = readable.subscription.options
        rate = pace(extent.rows, options.verify_every_seconds / len(self._readables))
        unknown = ""
        described = await source.table(table)
        digested = readable.subscription.leaves_as_they_are(table) and await can_digest(source, sink, described)
        if extent.rows > EXTRAS_ROWS_MAX and not digested:
            unknown = f"more than {EXTRAS_ROWS_MAX} rows would have to be kept in mind; `watcher verify` does that"
        elif extent.scopes[sink.scope(described.shape)] > 1:
            unknown = "several tables have their entries under the same names"
        verification = readable.verification(
            source,
            sink,
            Follower(self._view, readable.name),
            rows_per_second_max=rate,
            chunk_rows=chunk_rows(rate),
            extras_unknown=unknown,
            slowly=True,
        )
        await verification.run([table])
        (result,) = verification.results
        if result.count(Kind.MISSING) and options.start is Start.NOW:
            result.notes.append("rows from before the subscription began are missing until `watcher backfill start`")
        return outcome_of(result, self._wall())

    async def _keep(self, name: str) -> None:
        await self._journal.set_note(note_name(name), dump(self._scans[name]))
