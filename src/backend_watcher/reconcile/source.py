"""The rows of a table as the source has them now, as changes that transforms and a sink understand."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from backend_watcher.decode.chunks import OpenTransaction, RelationMark, expand, pack
from backend_watcher.decode.fetched import fetched_rows, gone_rows, key_texts
from backend_watcher.decode.tables import key_of, make_table
from backend_watcher.errors import ConfigError, SourceRefused, SourceUnavailable
from backend_watcher.events.change import Change
from backend_watcher.events.message import MARK
from backend_watcher.events.position import parse_lsn
from backend_watcher.events.table import Table
from backend_watcher.events.transaction import Stream
from backend_watcher.postgres import catalog, digests, outbox, reading, row_keys
from backend_watcher.postgres.connect import Connection, connect
from backend_watcher.postgres.reading import Asked, ReadTable
from backend_watcher.postgres.translate import translating
from backend_watcher.postgres.upkeep import emit_mark_at, without_waiting_for_standbys
from backend_watcher.verifiable import Bound

_NOWHERE = Stream("", "")
_OPEN = OpenTransaction(0, 0, 0, 0)
_REPAIR = OpenTransaction(0, 0, 0, 0, b'{"repair":""}')

ALTERED_MAX = 10
"""So often a table may be altered while one chunk of it is read."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one snapshot; where `more` follow, the next ones come `after`."""

    changes: Sequence[Change]
    snapshot: str
    more: bool
    after: tuple[str, ...]


class Source:
    """
    Reads tables: on one session that only reads, one query at a time. Marks are written on another one.

    Without a publication they are heard through an outbox.

    All methods raise SourceErrors.
    """

    def __init__(self, dsn: str, publication: str | None) -> None:
        self._dsn = dsn
        self._publication = publication
        self._reading: Connection | None = None
        self._marking: Connection | None = None

    async def close(self) -> None:
        """Let go of both sessions."""
        for conn in (self._reading, self._marking):
            if conn is not None and not conn.closed:
                await conn.close()
        self._reading = self._marking = None

    async def _reader(self) -> Connection:
        # A chunk that was larger than wished leaves its session of no use.
        if self._reading is None or self._reading.closed:
            self._reading = await connect(self._dsn, purpose="verify", read_only=True)
        return self._reading

    async def mark(self) -> int:
        """
        Write a message of ours, and return an LSN: what any snapshot saw before was committed before it.

        The stream brings it, so that the journal comes to that place on an idle database too.
        """
        if self._marking is None or self._marking.closed:
            self._marking = await connect(self._dsn, purpose="verify_mark")
            await without_waiting_for_standbys(self._marking)
        write = emit_mark_at if self._publication is not None else outbox.say_at
        return parse_lsn(await write(self._marking, MARK))

    async def table(self, name: str) -> SourceTable:
        """Look a table up. Raises SourceRefused where it is not there or not published, ConfigError without a key."""
        found, shape = await self._described(name)
        if not found.key:
            raise ConfigError(
                [f"{name} has no key by which single rows can be looked at again, so it cannot be verified"],
                remedy="Give it a primary key.",
            )
        return SourceTable(self, found, shape)

    async def shape(self, name: str) -> Table:
        """Say what a table looks like, also one without a key. Raises SourceRefused as `table`."""
        _, shape = await self._described(name)
        return shape

    async def _described(self, name: str) -> tuple[ReadTable, Table]:
        conn = await self._reader()
        facts = (await catalog.find_tables(conn, [name])).tables.get(name)
        found = await reading.describe(conn, self._publication, facts.oid) if facts is not None else None
        if facts is None or found is None:
            raise SourceRefused(f"table {name} is not there", remedy="Ask for it by its name of today.")
        return found, _shape(found, facts.primary_key)

    async def written(self, table: SourceTable, keys: Sequence[tuple[str, ...]]) -> list[bytes | None]:
        """Return keys as the server writes them, each as a line of COPY; None for what is no key."""
        conn = await self._reader()
        return await row_keys.as_written(conn, await row_keys.key_types(conn, table.read.oid, table.read.key), keys)

    async def running(self) -> frozenset[int]:
        """Return the transactions that have an id and are not over."""
        return await reading.writing_now(await self._reader())

    async def not_committing(self, xids: frozenset[int]) -> frozenset[int]:
        """Return those of some transactions that have surely not begun to commit."""
        return await reading.not_committing(await self._reader(), xids) if xids else xids

    async def read(self, table: SourceTable, asked: Asked, after: Sequence[str], size: int) -> Rows:
        """Read rows after a key, in the order of the key. A table that was altered meanwhile is described again."""
        for _ in range(ALTERED_MAX):
            chunk = await reading.read_chunk(await self._reader(), self._publication, table.read, asked, after, size)
            if chunk is None:
                table.become(await self.table(table.read.full_name))
                continue
            if chunk.bound is not None:
                end = key_texts(chunk.bound)
            else:
                end = table.key_of_line(chunk.lines[-1]) if chunk.lines else tuple(after)
            return Rows(table.changes(chunk.lines), chunk.snapshot, chunk.more, end)
        raise SourceUnavailable(f"{table.read.full_name} is altered all the time")

    async def digest_way(self, table: SourceTable) -> str:
        """Say how rows are digested here; "" where ranges of the key are not the same rows on another server."""
        if table.read.filter or not digests.is_ordered_alike(table.read):
            return ""
        with translating():
            return await digests.way_of(await self._reader())

    async def digests(
        self, table: SourceTable, after: Bound, count: int, part_rows: int
    ) -> list[tuple[int, int, Bound]] | None:
        """
        Digest the next rows after a key: rows, sum and last key of each part, () where a part has fewer rows.

        Returns None where that would take too long.
        """
        for _ in range(ALTERED_MAX):
            try:
                conn = await self._reader()
                found = await digests.source_parts(conn, self._publication, table.read, after, count, part_rows)
            except digests.TooLong:
                return None
            if found is not None:
                return found
            now = await self.table(table.read.full_name)
            if _key_types(now.read) != _key_types(table.read):
                raise SourceUnavailable(f"the key of {table.read.full_name} was altered", remedy="Verify it again.")
            table.become(now)
        raise SourceUnavailable(f"{table.read.full_name} is altered all the time")


class SourceTable:
    """A table as it is read now, and as its changes describe it."""

    def __init__(self, source: Source, read: ReadTable, shape: Table) -> None:
        self.source = source
        self.read = read
        self.shape = shape

    def become(self, other: SourceTable) -> None:
        """Have the shape that it has now."""
        self.read, self.shape = other.read, other.shape

    def changes(self, lines: Sequence[bytes]) -> list[Change]:
        """Make of each line of COPY what a backfill makes of it: a change of the operation `read`."""
        return self._expanded(_OPEN, *fetched_rows(self.read.oid, len(self.read.columns), lines))

    def gone(self, lines: Sequence[bytes]) -> list[Change]:
        """Make of each line with a key what a repair makes of it where there is no row: a delete."""
        places = [self.shape.index_of[name] for name in self.read.key]
        return self._expanded(_REPAIR, *gone_rows(self.read.oid, len(self.read.columns), places, lines))

    def _expanded(self, transaction: OpenTransaction, data: bytes, sizes: Sequence[int]) -> list[Change]:
        marks = [RelationMark(0, self.shape.relation_oid, self.shape.version)]
        return expand(pack(transaction, marks, array("I", sizes), [data]), {self.shape.version: self.shape}, _NOWHERE)

    def key_of_line(self, line: bytes) -> tuple[str, ...]:
        """Return what a row is found by, as texts."""
        return key_texts(line, self.read.key_places)

    def keys_of(self, change: Change) -> set[tuple[str, ...]]:
        """Return what the rows of a change are found by; none of a row whose key was not sent."""
        found = set()
        for row in (change.new, change.old):
            if row is None or any(name not in row for name in self.read.key):
                continue
            cells = [row.raw(name) for name in self.read.key]
            if all(isinstance(cell, bytes) for cell in cells):
                found.add(tuple(cell.decode("utf-8", "surrogateescape") for cell in cells))
        return found


def _shape(table: ReadTable, primary_key: Sequence[str]) -> Table:
    """Make the table as capture does, so that its rows are identified as they are in the journal."""
    columns = [(c.name, c.type_oid, c.modifier, c.identity) for c in table.columns]
    key = key_of(columns, table.replica_identity, primary_key)
    return make_table(table.oid, table.schema, table.name, table.replica_identity, columns, key)


def _key_types(table: ReadTable) -> list[tuple[str, int]]:
    """Return the columns of the key in their order, with their types."""
    types = {column.name: column.type_oid for column in table.columns}
    return [(name, types[name]) for name in table.key]
