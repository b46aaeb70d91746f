"""Looking at what both sides have of some entries, until it is known whether they differ: see `plan.py`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence

from backend_watcher.errors import CannotVerify, HandlerError, SinkRejected, WatcherError
from backend_watcher.events.change import Change
from backend_watcher.events.position import Position
from backend_watcher.postgres.reading import Asked
from backend_watcher.reconcile.compare import Difference, differs
from backend_watcher.reconcile.follow import Follower
from backend_watcher.reconcile.plan import (
    FORGOTTEN,
    LOOKS_MAX,
    OPEN,
    RIDDLE_SECONDS,
    RIDDLE_TRIES_MAX,
    Look,
    Suspect,
    Verdict,
    Wanted,
    judge,
    riddles,
    seconds_before,
)
from backend_watcher.reconcile.report import TableResult
from backend_watcher.reconcile.source import Source, SourceTable
from backend_watcher.verifiable import Verifiable

Passing = Callable[[Change], Change | None]


class Looks:
    """
    Looks at entries of one subscription.

    `passing` is what changes pass before the sink; it raises HandlerError where a function of the user's does.
    """

    def __init__(self, source: Source, sink: Verifiable, passing: Passing, follower: Follower) -> None:
        self._source = source
        self._sink = sink
        self._passing = passing
        self._follower = follower

    async def look_at(
        self, name: str, suspects: Sequence[Suspect], since_lsn: int
    ) -> tuple[dict[bytes, Difference | None], int]:
        """
        Look at some entries of a table only; return how each differs, None where it does not, and where that ended.

        What touched them after `since_lsn` is asked of the journal. Those that still move, or of which it is not known,
        are not among what is returned. That an entry has no row is sure only where `since_lsn` is from when it had one.
        """
        table = await self._source.table(name)
        oldest, left, found = self._follower.oldest(), list(suspects), dict[bytes, Difference | None]()
        for look in range(LOOKS_MAX):
            await asyncio.sleep(seconds_before(look))
            seen = await self.look(table, left, since_lsn, oldest)
            if isinstance(seen, str):
                continue
            since_lsn, moving = seen.end_lsn, []
            for suspect in left:
                difference = differs(suspect.name, seen.source.get(suspect.name), seen.held[suspect.name])
                verdict = judge(suspect, difference is not None, seen.touched, seen.owed)
                if verdict is Verdict.MOVING:
                    suspect.keys |= seen.touched.names.get(suspect.name, set())
                    moving.append(suspect)
                elif verdict is not Verdict.HELD:
                    found[suspect.name] = difference
            left = moving
            if not left:
                break
        return found, since_lsn

    async def entries(self, table: SourceTable, changes: Sequence[Change], result: TableResult | None) -> Wanted:
        """Say what should be held of rows."""
        wanted = Wanted()
        passed: list[tuple[Change, Change]] = []
        for change in changes:
            try:
                made = self._passing(change)
            except HandlerError as error:
                self._refuse(wanted, change, result, error)
                continue
            if made is not None:
                passed.append((change, made))
        found = await self._sink.entries([made for _, made in passed]) if passed else ()
        for (change, _), entry in zip(passed, found, strict=True):
            if isinstance(entry, SinkRejected):
                self._refuse(wanted, change, result, entry)
                continue
            name, value = entry
            wanted.values[name] = value
            suspect = wanted.suspects.setdefault(name, Suspect(name))
            suspect.keys |= table.keys_of(change)
            suspect.identities.add(change.key_bytes())
        return wanted

    def _refuse(self, wanted: Wanted, change: Change, result: TableResult | None, error: WatcherError) -> None:
        """Note a row that cannot be delivered, so that nothing is expected of it; of the first it is said why."""
        # What stood there before it could not be is no extra entry.
        with contextlib.suppress(SinkRejected):
            wanted.refused.update(self.touches(change))
        if result is None:
            return
        result.refused += 1
        if result.refused == 1:
            result.notes.append(f"a row that cannot be delivered: {type(error).__name__}")

    async def held(self, table: SourceTable, names: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return what the sink has under names, in their order."""
        return await self._sink.held(table.shape, names) if names else ()

    # Digests

    async def look(
        self, table: SourceTable, suspects: Sequence[Suspect], known_lsn: int, oldest: Position | None
    ) -> Look | str:
        """Look at entries as `plan.py` says; return why it shows nothing where it does not."""
        before = await self._source.running()
        keys = tuple(sorted({key for suspect in suspects for key in suspect.keys}))
        settled = await self._source.not_committing(before)
        for _ in range(RIDDLE_TRIES_MAX):
            changes, snapshot = await self._rows_of(table, keys)
            if not riddles(before, settled, snapshot):
                break
            settled |= await self._source.not_committing(before - settled)
            await asyncio.sleep(RIDDLE_SECONDS)
        else:
            return OPEN
        await self._follower.delivered(await self._source.mark())
        names = [suspect.name for suspect in suspects]
        held = await self.held(table, names)
        end_lsn = await self._source.mark()
        await self._follower.captured(end_lsn)
        touched = self._follower.touched(known_lsn, end_lsn, oldest, table, self.touches)
        if touched is None:
            return FORGOTTEN
        wanted = (await self.entries(table, changes, None)).values
        owed = self._follower.held(table, self.touches)
        return Look(wanted, dict(zip(names, held, strict=True)), touched, owed, end_lsn)

    async def _rows_of(self, table: SourceTable, keys: tuple[tuple[str, ...], ...]) -> tuple[list[Change], str]:
        """Read the rows with some keys, under one snapshot."""
        if not keys:
            # No row: a snapshot is wanted all the same, so that what is committed is known to be seen.
            none = await self._source.read(table, Asked("false"), (), 1)
            return [], none.snapshot
        found = await self._source.read(table, Asked(None, keys), (), len(keys) + 1)
        if found.more:
            raise CannotVerify(f"{len(keys)} rows of {table.shape.full_name} are too large to be read at once")
        return list(found.changes), found.snapshot

    def touches(self, change: Change) -> Sequence[bytes]:
        """Name the entries of a change, as it came and as the transforms make it."""
        names = set(self._sink.touches(change))
        try:
            passed = self._passing(change)
        except HandlerError:
            passed = None
        return [*names.union(self._sink.touches(passed))] if passed is not None else [*names]

    async def learn_keys(
        self, table: SourceTable, suspects: Iterable[Suspect], after_lsn: int, upto_lsn: int, oldest: Position | None
    ) -> bool:
        """Add the rows that have had the entries since; say whether the journal still has what changed."""
        await self._follower.captured(upto_lsn)
        touched = self._follower.touched(after_lsn, upto_lsn, oldest, table, self.touches)
        if touched is not None:
            for suspect in suspects:
                suspect.keys |= touched.names.get(suspect.name, set())
        return touched is not None
