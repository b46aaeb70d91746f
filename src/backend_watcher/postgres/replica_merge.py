"""
Writes rows into a target: COPY into a temporary table of texts, then one statement for each kind of change.

Rows that are new go by COPY into their table itself, as long as none of them was there.

Values travel as the source wrote them and are read by the target's own types. The staged table has a column `op`: `w`
for a whole row, `d` for a deleted key, `p0`, `p1`, … for rows that lack some columns (one letter a set of columns that
were not sent), and a column `c0`, `c1`, … for each of the source's.
"""

# ruff: noqa: S608 - names are quoted, and values go by COPY

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import psycopg

from backend_watcher.errors import SinkRejected
from backend_watcher.events.fields import Cell, join_cells, text_line
from backend_watcher.events.table import Table
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.names import quote
from backend_watcher.postgres.replica_tables import Target, key_of

COPY_BYTES = 1 << 20
"""So much is gathered before it is handed to the connection."""

FILLINGS_MAX = 200
"""So often a staged table is filled in one transaction before it is emptied: each statement reads all of it."""

_COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_END = b"\xff\xff"

WRITE = "w"
DELETE = "d"


class Merge:
    """The statements for one shape of a source table and its target."""

    def __init__(self, table: Table, target: Target, number: int) -> None:
        self.table = table
        self.target = target
        self.stage = f"pg_temp.stage_{number}"
        self.key = key_of(table)
        self._filling = 0
        # Of a table that has columns of its own making the fields do not fit COPY as they are.
        self._straight = all(not target.columns[column.name].generated for column in table.columns)
        self._row_head = (len(table.columns) + 1).to_bytes(2, "big")
        # What the target computes itself is left to it.
        self._columns = [column.name for column in table.columns if not target.columns[column.name].generated]

    async def prepare(self, conn: Connection) -> None:
        """Make the staged table; outside of a transaction, whose end could take it away again."""
        columns = "".join(f", c{number} text" for number in range(len(self.table.columns)))
        name = self.stage.partition(".")[2]
        await conn.execute(f"CREATE TEMP TABLE {name} (op text{columns}) ON COMMIT DELETE ROWS".encode())

    # The statements

    def _op(self, letter: str) -> str:
        return f"{self._filling}{letter}"

    def _value(self, name: str) -> str:
        return self.target.columns[name].read(f"s.c{self.table.index_of[name]}")

    def _same_key(self) -> str:
        return " AND ".join(f"t.{quote(name)} = {self._value(name)}" for name in self.key)

    def _insert(self, op: str) -> str:
        columns = ", ".join(map(quote, self._columns))
        values = ", ".join(map(self._value, self._columns))
        return (
            f"INSERT INTO {self.target.quoted} ({columns}) OVERRIDING SYSTEM VALUE "
            f"SELECT {values} FROM {self.stage} s WHERE s.op = '{op}'"
        )

    def _write_statement(self) -> str:
        insert = self._insert(self._op(WRITE))
        if frozenset(self.key) not in self.target.arbiters:
            # Checked at the end of the transaction only, the index cannot be named in ON CONFLICT.
            return f"{self._delete(self._op(WRITE))}; {insert}"
        others = [name for name in self._columns if name not in self.key]
        sets = ", ".join(f"{quote(name)} = EXCLUDED.{quote(name)}" for name in others)
        conflict = f"ON CONFLICT ({', '.join(map(quote, self.key))})"
        return f"{insert} {conflict} DO {f'UPDATE SET {sets}' if others else 'NOTHING'}"

    def _delete(self, op: str) -> str:
        return f"DELETE FROM {self.target.quoted} t USING {self.stage} s WHERE s.op = '{op}' AND {self._same_key()}"

    def _update(self, op: str, lacking: frozenset[int]) -> str:
        index_of = self.table.index_of
        names = [name for name in self._columns if index_of[name] not in lacking and name not in self.key]
        sets = ", ".join(f"{quote(name)} = {self._value(name)}" for name in names or self.key)
        return (
            f"UPDATE {self.target.quoted} t SET {sets} FROM {self.stage} s WHERE s.op = '{op}' AND {self._same_key()}"
        )

    # Rows with a key

    async def write(
        self,
        conn: Connection,
        whole: Sequence[bytes],
        gone: Sequence[bytes],
        parts: dict[frozenset[int], list[Sequence[Cell]]],
        expected: bool | None = None,
    ) -> None:
        """
        Write rows, each key once: whole rows and deleted ones as fields, the others by what they lack.

        `expected` says whether the whole rows should be there already, or not, which is faster where it is so.
        Raises SinkRejected where a row that is to be updated in part is not there.
        """
        # An index that is checked at the end only would fail the whole transaction.
        straight = expected is False and self._straight and frozenset(self.key) in self.target.arbiters
        new, staged = (whole, ()) if straight else ((), whole)
        if staged or gone or parts:
            await self._fill(conn, self._rows(staged, gone, parts))
        if gone:
            await conn.execute(self._delete(self._op(DELETE)).encode())
        if staged:
            await self._write_staged(conn, len(staged), expected)
        for number, (lacking, rows) in enumerate(parts.items()):
            done = await conn.execute(self._update(self._op(f"p{number}"), lacking).encode())
            if done.rowcount < len(rows):
                raise unavailable(self.table, lacking)
        if new and not await self._copied(conn, new):
            await self._fill(conn, self._rows(new, (), {}))
            await self._write_staged(conn, len(new), None)

    async def _write_staged(self, conn: Connection, count: int, expected: bool | None) -> None:
        if expected and frozenset(self.key) in self.target.arbiters:
            done = await conn.execute(self._update(self._op(WRITE), frozenset()).encode())
            if done.rowcount < count:
                conflict = f"ON CONFLICT ({', '.join(map(quote, self.key))}) DO NOTHING"
                await conn.execute(f"{self._insert(self._op(WRITE))} {conflict}".encode())
            return
        await conn.execute(self._write_statement().encode())

    async def _copied(self, conn: Connection, rows: Sequence[bytes]) -> bool:
        """Put rows into their table by COPY; False where it has to be done otherwise."""
        columns = ", ".join(map(quote, self._columns))
        statement = f"COPY {self.target.quoted} ({columns}) FROM STDIN".encode()
        try:
            async with conn.transaction():
                await _copy(conn, statement, map(text_line, rows))
        except (psycopg.errors.UniqueViolation, psycopg.errors.FeatureNotSupported):
            # Rows that were loaded before, or a table that COPY does not write to: row-level security, a view.
            self._straight = False
            return False
        except psycopg.DataError:
            # A row that does not fit, or a column that has another type by now: the statements below tell which.
            return False
        return True

    def _rows(
        self, whole: Sequence[bytes], gone: Sequence[bytes], parts: dict[frozenset[int], list[Sequence[Cell]]]
    ) -> Iterable[bytes]:
        head = self._head(WRITE)
        for fields in whole:
            yield head + fields
        head = self._head(DELETE)
        for fields in gone:
            yield head + fields
        for number, rows in enumerate(parts.values()):
            head = self._head(f"p{number}")
            for cells in rows:
                yield head + join_cells(cells)

    async def read(self, conn: Connection, gone: bytes) -> list[Cell] | None:
        """Return the row with a key as it is now at the target, as texts; None where there is none."""
        await self._fill(conn, self._rows((), [gone], {}))
        texts = ", ".join(f"t.{quote(column.name)}::text" for column in self.table.columns)
        where = f"s.op = '{self._op(DELETE)}' AND {self._same_key()}"
        query = f"SELECT {texts} FROM {self.target.quoted} t, {self.stage} s WHERE {where}"
        row = await (await conn.execute(query.encode())).fetchone()
        return None if row is None else [None if value is None else value.encode() for value in row]

    # Rows without a key: equal ones are several

    async def insert(self, conn: Connection, rows: Sequence[bytes]) -> None:
        """Add rows."""
        if self._straight and await self._copied(conn, rows):
            return
        await self._fill(conn, self._rows(rows, (), {}))
        await conn.execute(self._insert(self._op(WRITE)).encode())

    async def replace_one(self, conn: Connection, old: bytes, new: bytes | None) -> bool:
        """Delete one of the rows that equal `old`, or make it `new`; False where there is no such row."""
        # Compared by their bytes (*=): also types without an equality, and NULL equals NULL.
        await self._fill(conn, self._rows(() if new is None else [new], [old], {}))
        there = ", ".join(f"t.{quote(name)}" for name in self._columns)
        values = ", ".join(map(self._value, self._columns))
        found = (
            f"(SELECT t.tableoid, t.ctid FROM {self.target.quoted} t, {self.stage} s "
            f"WHERE s.op = '{self._op(DELETE)}' "
            f"AND ROW({there})::record OPERATOR(pg_catalog.*=) ROW({values})::record LIMIT 1)"
        )
        where = "t.tableoid = f.tableoid AND t.ctid = f.ctid"
        if new is None:
            statement = f"DELETE FROM {self.target.quoted} t USING {found} f WHERE {where}"
        else:
            sets = ", ".join(f"{quote(name)} = {self._value(name)}" for name in self._columns)
            statement = (
                f"UPDATE {self.target.quoted} t SET {sets} FROM {found} f, {self.stage} s "
                f"WHERE s.op = '{self._op(WRITE)}' AND {where}"
            )
        done = await conn.execute(statement.encode())
        return done.rowcount == 1

    # The staged rows

    async def _fill(self, conn: Connection, rows: Iterable[bytes]) -> None:
        self._filling += 1
        if self._filling % FILLINGS_MAX == 0:
            await conn.execute(f"TRUNCATE {self.stage}".encode())
        statement = f"COPY {self.stage} FROM STDIN (FORMAT binary)".encode()
        await _copy(conn, statement, chain((_COPY_HEAD,), rows, (_COPY_END,)))

    def _head(self, letter: str) -> bytes:
        op = self._op(letter).encode()
        return self._row_head + len(op).to_bytes(4, "big") + op


def unavailable(table: Table, lacking: Iterable[int]) -> SinkRejected:
    """Say that a row cannot be made whole: a large value was not sent, and the target does not have the row."""
    names = ", ".join(table.columns[index].name for index in sorted(lacking))
    return SinkRejected(
        f"toast_unavailable: {names} of {table.full_name} was not sent, because the update left it alone, "
        "and the row is not at the target",
        remedy=f"ALTER TABLE {table.full_name} REPLICA IDENTITY FULL, or put the row there and redrive.",
    )


async def _copy(conn: Connection, statement: bytes, parts: Iterable[bytes]) -> None:
    async with conn.cursor() as cursor, cursor.copy(statement) as copy:
        gathered, size = [], 0
        for part in parts:
            gathered.append(part)
            size += len(part)
            if size >= COPY_BYTES:
                await copy.write(b"".join(gathered))
                gathered, size = [], 0
        await copy.write(b"".join(gathered))


async def truncate(conn: Connection, target: Target) -> None:
    """Empty a table, row by row where foreign keys do not let it be done at once."""
    try:
        async with conn.transaction():
            await conn.execute(f"TRUNCATE {target.quoted}".encode())
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.InsufficientPrivilege):
        await conn.execute(f"DELETE FROM {target.quoted}".encode())
