"""
Reads the tables of a subscription and what its sink holds, and finds what is not as it should be.

Rows are read a chunk at a time, each under a snapshot of its own, and pass what changes pass: the predicate and the
transforms, then the sink's own words for what it would hold of them. What stands there is compared at once, without
waiting: an entry that is equal is equal. Only where one is not do both sides have to come to one position (`plan.py`),
so a table that nobody writes to costs one query and one answer of the sink for each chunk.

What has no row at the source is found by asking the sink for its names, when all rows have been read: a name that was
not among them was either made since, which the journal shows, or should not be there.

Nothing is written, but for marks in the WAL of the source: empty messages, as the heartbeat's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from backend_watcher.errors import CannotVerify, ConfigError, HandlerError
from backend_watcher.events.change import Change
from backend_watcher.events.position import Position
from backend_watcher.postgres.reading import Asked
from backend_watcher.reconcile.bisect import RANGE_ROWS_MAX, Span
from backend_watcher.reconcile.compare import Kind, compare, differs, masked_in
from backend_watcher.reconcile.digest import NameSet
from backend_watcher.reconcile.follow import Follower
from backend_watcher.reconcile.looks import FORGOTTEN, OPEN, Look, Looks, Passing
from backend_watcher.reconcile.plan import (
    ENTRIES_MAX,
    LOOKS_MAX,
    Suspect,
    Verdict,
    judge,
    seconds_before,
)
from backend_watcher.reconcile.ranges import Ranges
from backend_watcher.reconcile.report import Range, TableResult
from backend_watcher.reconcile.source import Source, SourceTable, quiet_mark
from backend_watcher.verifiable import EXPIRED, Digesting, Verifiable

CHUNK_ROWS = 5_000
EXTRAS_MAX = 20_000
"""Entries without a row, as it seems at first, that are looked at again."""

MASKS_LOOKED_AT = 20
"""Rows of each chunk in which is looked for what the transforms mask."""

MOVING = "changed all the time"
HELD = "its key is held: see `watcher parked list`"


class Verification:
    """
    Verifies tables of one subscription, one after the other.

    `results` has what is known, whenever it is asked, and `left_out` why one of several tables was not verified.
    `passing` is what changes pass before the sink; it raises HandlerError where a function of the user's does. It
    leaves the rows of tables that are named in `as_they_are` as they are. `extras_unknown` says why entries without a
    row are not to be looked for; nor are they told where more than `extras_journal_bytes_max` was written while a table
    was read.
    """

    def __init__(
        self,
        subscription: str,
        source: Source,
        sink: Verifiable,
        passing: Passing,
        follower: Follower,
        *,
        where: str | None = None,
        rows_per_second_max: float | None = None,
        chunk_rows: int = CHUNK_ROWS,
        as_they_are: Collection[str] = (),
        extras_unknown: str = "",
        extras_journal_bytes_max: int | None = None,
    ) -> None:
        self._subscription = subscription
        self._source = source
        self._sink = sink
        self._passing = passing
        self._follower = follower
        self._looks = Looks(source, sink, passing, follower)
        self._where = where
        self._rate = rows_per_second_max
        self._chunk_rows = chunk_rows
        self._as_they_are = as_they_are
        self._extras_unknown = extras_unknown
        self._extras_journal_bytes_max = extras_journal_bytes_max
        self.results: list[TableResult] = []
        self.left_out: dict[str, str] = {}

    async def run(self, names: Sequence[str], others: Iterable[str] = ()) -> None:
        """
        Verify tables by their full names; `others` are those of the subscription that are left out now.

        Raises a WatcherError where it cannot go on, or is cancelled: what was found so far is in `results`.
        """
        tables = []
        for name in names:
            try:
                tables.append(await self._source.table(name))
            except ConfigError as error:
                self._leave_out(name, error, names)
        scopes = Counter([self._sink.scope(await self._source.shape(name)) for name in (*others, *self.left_out)])
        scopes.update(self._sink.scope(table.shape) for table in tables)
        for table in tables:
            result = TableResult(self._subscription, table.shape.full_name, self._where)
            result.extras_unknown = self._extras_unknown or self._sink.extras_unknown()
            if self._where is not None:
                result.extras_unknown = "only some rows were asked for"
            elif scopes[self._sink.scope(table.shape)] > 1:
                result.extras_unknown = "several tables have their entries under the same names"
            self.results.append(result)
        for table, result in zip(tables, self.results[:], strict=True):
            begun = time.monotonic()
            try:
                await self._table(table, result)
            except ConfigError as error:
                self.results.remove(result)
                self._leave_out(result.table, error, names)
            finally:
                result.entries = result.sink.count
                result.seconds = time.monotonic() - begun

    def _leave_out(self, name: str, error: ConfigError, names: Sequence[str]) -> None:
        """Go on without a table; raise ConfigError where there is no other."""
        self.left_out[name] = error.message
        if len(self.left_out) == len(names):
            raise ConfigError([*self.left_out.values()], remedy=error.remedy)

    async def only(self, name: str, suspects: Sequence[Suspect], since_lsn: int | None) -> None:
        """
        Verify some entries of a table, by its full name. Raises as `run`.

        `since_lsn` is where it was last known which rows they may be of.
        """
        table = await self._source.table(name)
        result = TableResult(self._subscription, name, extras_unknown="only some entries were looked at")
        self.results.append(result)
        begun, oldest = time.monotonic(), self._follower.oldest()
        now_lsn = await quiet_mark(self._source)
        if now_lsn is None or not await self._looks.learn_keys(table, suspects, since_lsn or now_lsn, now_lsn, oldest):
            result.unsettled[OPEN if now_lsn is None else FORGOTTEN] += len(suspects)
            return
        # Of any rows of the table: those of the entries may be gone.
        rows = await self._source.read(table, Asked(), (), MASKS_LOOKED_AT)
        self._learn_masks(rows.changes, result)
        one = Range(0)
        await self._again(table, suspects, result, one, now_lsn, oldest, last=True)
        result.took(one)
        result.entries, result.seconds = len(suspects), time.monotonic() - begun
        await self._ended(result)

    async def _ended(self, result: TableResult) -> None:
        """Say where the subscription stands, if it can be said."""
        result.complete = not result.full
        try:
            result.position = await self._follower.delivered(await self._source.mark())
        except CannotVerify as error:
            # What was found equal is equal all the same.
            result.notes.append(error.message)

    async def _table(self, table: SourceTable, result: TableResult) -> None:
        seen = NameSet()
        oldest = self._follower.oldest()
        result.since_lsn = await self._source.mark()
        begun_lsn = await quiet_mark(self._source)
        strays: dict[bytes, Suspect] = {}
        if (ranges := await self._ranges(table, result)) is not None:
            await self._by_digests(table, result, ranges, strays)
        else:
            await self._rows(table, result, seen, strays)
            if not result.extras_unknown and not result.full:
                await self._strangers(table, result, seen, strays)
        if strays and begun_lsn is None:
            result.unsettled[OPEN] += len(strays)
        elif strays and begun_lsn is not None:
            await self._extras(table, result, strays, begun_lsn, oldest)
        if result.full:
            result.notes.append(f"ended after {len(result.differences)} differences")
        await self._ended(result)

    # Rows

    async def _rows(self, table: SourceTable, result: TableResult, seen: NameSet, strays: dict[bytes, Suspect]) -> None:
        """
        Compare the entries of all rows.

        `strays` takes entries whose row has another name by now. Who has the name today may have got it when nobody
        saw it yet, and only all that the journal has since the beginning shows that.
        """
        after: tuple[str, ...] = ()
        more = True
        while more and not result.full:
            begun = time.monotonic()
            oldest, since_lsn = self._follower.oldest(), await self._source.mark()
            rows = await self._source.read(table, Asked(self._where), after, self._chunk_rows)
            self._learn_masks(rows.changes[:MASKS_LOOKED_AT], result)
            one = Range(len(rows.changes))
            wrong = await self._compared(table, rows.changes, result, one, seen)
            looks = self._again(table, wrong, result, one, since_lsn, oldest)
            strays |= {stray.name: stray for stray in await looks}
            if rows.changes:
                result.took(one)
            after, more = rows.after, rows.more
            if self._rate and more:
                await asyncio.sleep(max(0.0, len(rows.changes) / self._rate - (time.monotonic() - begun)))

    async def _compared(
        self, table: SourceTable, changes: Sequence[Change], result: TableResult, one: Range, seen: NameSet
    ) -> list[Suspect]:
        """Compare the entries of rows, count those that are equal, and return the others; `seen` takes all names."""
        found = await self._looks.entries(table, changes, result)
        wanted, names = found.values, list(found.values)
        if not result.extras_unknown:
            seen.add(names)
            seen.add(found.refused)
        held = await self._looks.held(table, names)
        result.expired += sum(value == EXPIRED for value in held)
        wrong = {difference.name for difference in compare(wanted, names, held)}
        for name, value in zip(names, held, strict=True):
            if name not in wrong:
                _count(one, name, wanted[name], value)
        return [found.suspects[name] for name in names if name in wrong]

    def _learn_masks(self, changes: Sequence[Change], result: TableResult) -> None:
        """Note which columns have another value behind the transforms."""
        for change in changes:
            try:
                passed = self._passing(change)
            except HandlerError:
                continue
            if passed is not None and passed is not change:
                result.masked |= masked_in(change, passed)

    async def _ranges(self, table: SourceTable, result: TableResult) -> Ranges | None:
        """Return the table's ranges, where both sides can digest what they should have in common."""
        sink, name = self._sink, table.shape.full_name
        if name not in self._as_they_are or result.extras_unknown or not isinstance(sink, Digesting):
            return None
        way = await self._source.digest_way(table)
        if not way or way != await sink.digest_way(table.shape, table.read.key):
            return None
        return Ranges(self._source, sink, table, self._chunk_rows, int(self._rate or RANGE_ROWS_MAX))

    async def _by_digests(
        self, table: SourceTable, result: TableResult, ranges: Ranges, strays: dict[bytes, Suspect]
    ) -> None:
        """Compare ranges by their digests; read the parts that differ."""
        result.by_digests = True
        begun = time.monotonic()
        async with contextlib.aclosing(ranges.each()) as every:
            async for compared in every:
                one = Range(compared.rows)
                one.source.take(compared.rows, compared.total)
                one.sink.take(compared.rows, compared.total)
                if compared.spans:
                    await self._spans(table, result, one, compared.spans, strays)
                if one.rows:
                    result.took(one)
                if result.full:
                    break
                if self._rate:
                    await asyncio.sleep(max(0.0, one.rows / self._rate - (time.monotonic() - begun)))
                begun = time.monotonic()

    async def _spans(
        self, table: SourceTable, result: TableResult, one: Range, spans: Sequence[Span], strays: dict[bytes, Suspect]
    ) -> None:
        """Read both sides of some keys, and look again at what differs, of all of them together."""
        oldest, since_lsn = self._follower.oldest(), await self._source.mark()
        wrong: list[Suspect] = []
        for number, span in enumerate(spans, 1):
            seen = NameSet()
            after, more = span.low, True
            while more:
                rows = await self._source.read(table, Asked(upto=span.high), after, self._chunk_rows)
                wrong += await self._compared(table, rows.changes, result, one, seen)
                one.rows += len(rows.changes)
                result.read_again += len(rows.changes)
                after, more = rows.after, rows.more
            await self._strangers(table, result, seen, strays, span)
            if number == len(spans) or len(wrong) >= ENTRIES_MAX:
                looks = self._again(table, wrong, result, one, since_lsn, oldest)
                strays |= {stray.name: stray for stray in await looks}
                wrong = []
            if result.full:
                return

    # Looking again

    async def _again(
        self,
        table: SourceTable,
        suspects: Sequence[Suspect],
        result: TableResult,
        one: Range,
        since_lsn: int,
        oldest: Position | None,
        *,
        last: bool = False,
    ) -> list[Suspect]:
        """
        Look at entries until they are equal or have proved to differ, and write down which.

        What the journal shows from `since_lsn` on was not known when their rows were read. Unless it is the `last`
        time, those that no row has any more are returned.
        """
        strays: list[Suspect] = []
        for begin in range(0, len(suspects), ENTRIES_MAX):
            left = list(suspects[begin : begin + ENTRIES_MAX])
            reason, known_lsn = MOVING, since_lsn
            for look in range(LOOKS_MAX):
                await asyncio.sleep(seconds_before(look))
                seen = await self._looks.look(table, left, known_lsn, oldest)
                if isinstance(seen, str):
                    reason = seen
                    continue
                reason, known_lsn = MOVING, seen.end_lsn
                left = self._judged(left, seen, result, one, None if last else strays)
                if not left:
                    break
            if left:
                result.unsettled[reason] += len(left)
            if result.full:
                break
        return strays

    def _judged(
        self, suspects: Sequence[Suspect], seen: Look, result: TableResult, one: Range, strays: list[Suspect] | None
    ) -> list[Suspect]:
        """Settle what can be; return what moves, with the rows that it may be of now."""
        moving = []
        for suspect in suspects:
            name = suspect.name
            wanted, held = seen.source.get(name), seen.held[name]
            difference = differs(name, wanted, held)
            verdict = judge(suspect, difference is not None, seen.touched, seen.owed)
            result.looked_again += 1
            result.read_again += 1
            if verdict is Verdict.MOVING:
                suspect.keys |= seen.touched.names.get(name, set())
                moving.append(suspect)
                continue
            if difference is not None and difference.kind is Kind.EXTRA and strays is not None:
                strays.append(suspect)
                continue
            if verdict is Verdict.HELD:
                result.unsettled[HELD] += 1
            elif difference is not None:
                result.differences.append(replace(difference, keys=tuple(sorted(suspect.keys))))
            _count(one, name, wanted, held)
        return moving

    # What has no row

    async def _strangers(
        self,
        table: SourceTable,
        result: TableResult,
        seen: NameSet,
        strays: dict[bytes, Suspect],
        span: Span | None = None,
    ) -> None:
        """Ask the sink for its names, of all rows or of a span, and note those that no row had."""
        low, cursor, more = span.low if span is not None else (), b"", True
        while more and len(strays) < EXTRAS_MAX:
            if span is not None:
                assert isinstance(self._sink, Digesting)
                names, low = await self._sink.names_between(table.shape, table.read.key, low, span.high)
                more = low != ()
            else:
                names, cursor = await self._sink.names_after(table.shape, cursor)
                more = cursor != b""
            for name in names:
                if name not in seen:
                    strays.setdefault(name, Suspect(name))
        note = f"ended looking for extra entries after {EXTRAS_MAX:,} that may be"
        if more and note not in result.notes:
            result.notes.append(note)

    async def _extras(
        self,
        table: SourceTable,
        result: TableResult,
        strays: dict[bytes, Suspect],
        begun_lsn: int,
        oldest: Position | None,
    ) -> None:
        """Look at entries without a row. One that was made since the beginning is known by what the journal shows."""
        end_lsn = await self._source.mark()
        if self._extras_journal_bytes_max is not None and end_lsn - begun_lsn > self._extras_journal_bytes_max:
            result.extras_unknown = "too much was written meanwhile to tell them from new ones"
            return
        if not await self._looks.learn_keys(table, strays.values(), begun_lsn, end_lsn, oldest):
            result.unsettled[FORGOTTEN] += len(strays)
            return
        one = Range(0)
        await self._again(table, list(strays.values()), result, one, end_lsn, oldest, last=True)
        result.source.join(one.source)
        result.sink.join(one.sink)


def _count(one: Range, name: bytes, wanted: bytes | None, held: bytes | None) -> None:
    """Take an entry into the digests of both sides; one that has expired is in neither."""
    if held == EXPIRED:
        return
    if wanted is not None:
        one.source.add(name, wanted)
    if held is not None:
        one.sink.add(name, held)
