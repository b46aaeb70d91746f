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
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from backend_watcher.errors import CannotVerify, ConfigError, HandlerError
from backend_watcher.events.change import Change
from backend_watcher.events.position import Position
from backend_watcher.postgres.reading import Asked
from backend_watcher.reconcile.by_digests import ByDigests, Steps, can_digest
from backend_watcher.reconcile.compare import Kind, compare, differs, masked_in
from backend_watcher.reconcile.digest import NameSet
from backend_watcher.reconcile.follow import Follower
from backend_watcher.reconcile.looks import Looks, Passing
from backend_watcher.reconcile.plan import (
    ENTRIES_MAX,
    FORGOTTEN,
    HELD,
    LOOKS_MAX,
    MOVING,
    OPEN,
    RIDDLE_SECONDS,
    RIDDLE_TRIES_MAX,
    Look,
    Suspect,
    Verdict,
    judge,
    seconds_before,
)
from backend_watcher.reconcile.report import Range, TableResult
from backend_watcher.reconcile.source import Source, SourceTable
from backend_watcher.reconcile.walk import Walk
from backend_watcher.verifiable import EXPIRED, Digesting, Verifiable

CHUNK_ROWS = 5_000
EXTRAS_MAX = 20_000
"""Entries without a row, as it seems at first, that are looked at again."""

MASKS_LOOKED_AT = 20
"""Rows of each chunk in which is looked for what the transforms mask."""


class Verification:
    """
    Verifies tables of one subscription, one after the other.

    `results` has what is known, whenever it is asked, and `left_out` why one of several tables was not verified.
    `passing` is what changes pass before the sink; it raises HandlerError where a function of the user's does. It
    leaves the rows of tables that are named in `as_they_are` as they are. `extras_unknown` says why entries without a
    row are not to be looked for. With `slowly` a table may take hours: what is written meanwhile is followed, and not
    read at the end.
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
        slowly: bool = False,
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
        self._slowly = slowly
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
            result = TableResult(self._subscription, table.shape.full_name, self._where, key=table.read.key)
            result.begun_at(self._follower.oldest(), await self._source.mark())
            result.extras_unknown = self._extras_unknown or self._sink.extras_unknown()
            if self._where is not None:
                result.extras_unknown = "only some rows were asked for"
            elif scopes[self._sink.scope(table.shape)] > 1:
                result.extras_unknown = "several tables have their entries under the same names"
            self.results.append(result)
        for table, result in zip(tables, self.results[:], strict=True):
            begun = time.monotonic()
            try:
                one = self._by_digests if await self._can_digest(table, result) else self._table
                await one(table, result)
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

    async def _table(self, table: SourceTable, result: TableResult) -> None:
        seen = NameSet()
        oldest = self._follower.oldest()
        begun_lsn = await self._quiet_mark()
        strays: dict[bytes, Suspect] = {}
        touches = self._looks.touches
        walk = Walk(self._follower, table, touches, begun_lsn) if self._slowly and begun_lsn is not None else None
        await self._rows(table, result, seen, strays, walk)
        if walk is not None:
            # Of rows that were given another name meanwhile the next scan knows.
            strays.clear()
        if not result.extras_unknown and not result.full:
            await self._strangers(table, result, seen, strays, walk)
        if walk is not None:
            begun_lsn = walk.end_lsn
            walk.take_out(strays, result)
        if strays and begun_lsn is None:
            result.unsettled[OPEN] += len(strays)
        elif strays and begun_lsn is not None:
            await self._extras(table, result, strays, begun_lsn, oldest)
        await self._ended(result)

    async def _ended(self, result: TableResult) -> None:
        """Say whether all was looked at, and where the subscription stands, if it can be said."""
        if result.full:
            result.notes.append(f"ended after {len(result.differences)} differences")
        result.complete = not result.full
        try:
            result.position = await self._follower.delivered(await self._source.mark())
        except CannotVerify as error:
            # What was found equal is equal all the same.
            result.notes.append(error.message)

    async def _can_digest(self, table: SourceTable, result: TableResult) -> bool:
        """Say whether digests of both sides can be compared: all rows are wanted, as they are."""
        if table.shape.full_name not in self._as_they_are or result.extras_unknown:
            return False
        return await can_digest(self._source, self._sink, table)

    async def _by_digests(self, table: SourceTable, result: TableResult) -> None:
        async def compare(changes: Sequence[Change], one: Range, seen: NameSet) -> list[Suspect]:
            return await self._compared(table, changes, result, one, seen)

        async def look_again(suspects: Sequence[Suspect], one: Range) -> list[Suspect]:
            oldest, since_lsn = self._follower.oldest(), await self._source.mark()
            return await self._again(table, suspects, result, one, since_lsn, oldest, last=True)

        steps = Steps(compare, look_again)
        assert isinstance(self._sink, Digesting)
        await ByDigests(self._source, self._sink, table, result, steps, self._chunk_rows, self._rate).run()
        await self._ended(result)

    async def _quiet_mark(self) -> int | None:
        """Write a mark that nobody committed before without being seen by now; None where somebody may have."""
        lsn = await self._source.mark()
        before = await self._source.running()
        settled = await self._source.not_committing(before)
        for _ in range(RIDDLE_TRIES_MAX):
            if not (before - settled) & await self._source.running():
                return lsn
            await asyncio.sleep(RIDDLE_SECONDS)
            settled |= await self._source.not_committing(before - settled)
        return None

    # Rows

    async def _rows(
        self,
        table: SourceTable,
        result: TableResult,
        seen: NameSet,
        strays: dict[bytes, Suspect],
        walk: Walk | None,
    ) -> None:
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
            if walk is not None and not result.extras_unknown:
                await walk.step(since_lsn, seen.add)
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
                one.count(name, wanted[name], value)
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
                result.differences.append(difference.of_rows(suspect.keys))
            one.count(name, wanted, held)
        return moving

    # What has no row

    async def _strangers(
        self,
        table: SourceTable,
        result: TableResult,
        seen: NameSet,
        strays: dict[bytes, Suspect],
        walk: Walk | None,
    ) -> None:
        """Ask the sink for its names, and note those that no row had."""
        cursor, more = b"", True
        while more and len(strays) < EXTRAS_MAX:
            names, cursor = await self._sink.names_after(table.shape, cursor)
            more = cursor != b""
            for name in names:
                if name not in seen and not (walk is not None and name in walk.later):
                    strays.setdefault(name, Suspect(name))
            if walk is not None and more:
                await walk.pause(self._source.mark)
        if more:
            result.notes.append(f"ended looking for extra entries after {len(strays)} that may be")

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
        if not await self._looks.learn_keys(table, strays.values(), begun_lsn, end_lsn, oldest):
            result.unsettled[FORGOTTEN] += len(strays)
            return
        one = Range(0)
        await self._again(table, list(strays.values()), result, one, end_lsn, oldest, last=True)
        result.source.join(one.source)
        result.sink.join(one.sink)
