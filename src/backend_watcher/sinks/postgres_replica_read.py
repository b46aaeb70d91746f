"""
A replica as it is read back: which rows should stand there, and which do.

An entry is a row. Its name is its key, a JSON array of texts; its value a JSON object of texts, column by column. All
of them are as the target prints them. So a value that it stores otherwise than the source (of another type, rounded,
padded) is what it should be where it is what would be written; and what a row is called is the same on both sides,
because a key of another type is refused.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from backend_watcher.errors import ConfigError, SinkRejected
from backend_watcher.events.change import Change
from backend_watcher.events.fields import Cell, cells_of
from backend_watcher.events.row import Missing, Row
from backend_watcher.events.table import Table, qualify
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.digests import TooLong, target_parts, way_of
from backend_watcher.postgres.printed import Texts
from backend_watcher.postgres.replica_errors import blaming_server, is_refusal
from backend_watcher.postgres.replica_reading import TargetRows, open_reader, target_rows
from backend_watcher.postgres.replica_tables import key_of
from backend_watcher.verifiable import Bound

NAMES = 10_000
"""Names that are asked for at once."""

_T = TypeVar("_T")
_Entry = tuple[bytes, bytes | None] | SinkRejected


class ReadBack:
    """
    Reads a replica at `dsn`, on a session of its own that cannot write; all methods raise SinkErrors.

    `place_name` names the server for people, `schema` is where tables are if not in the source's own.
    """

    def __init__(self, dsn: str, place_name: str, schema: str | None, create: bool) -> None:
        self._dsn = dsn
        self._place_name = place_name
        self._schema = schema
        self._create = create
        self._lock = asyncio.Lock()
        self._conn: Connection | None = None
        self._rows: dict[int, TargetRows] = {}

    async def open(self) -> None:
        """Connect."""
        await self._ask(self._connected)

    async def close(self) -> None:
        """Let go of the session."""
        async with self._lock:
            await self._hang_up()

    async def _connected(self) -> Connection:
        if self._conn is None or self._conn.closed:
            self._rows.clear()
            self._conn = await open_reader(self._dsn)
        return self._conn

    async def _hang_up(self) -> None:
        conn, self._conn = self._conn, None
        self._rows.clear()
        if conn is not None:
            await conn.close()

    async def _ask(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Ask the server something. Whatever fails, the next question goes to a new session."""
        async with self._lock:
            try:
                return await work()
            except ConfigError:
                raise
            except Exception as error:
                await self._hang_up()
                raise blaming_server(error, self._place_name) from error
            except BaseException:
                await self._hang_up()
                raise

    async def _of(self, table: Table) -> tuple[Connection, TargetRows]:
        conn = await self._connected()
        rows = self._rows.get(table.version)
        if rows is None:
            rows = await target_rows(conn, table, self._schema or table.schema, create=self._create)
            self._rows[table.version] = rows
        return conn, rows

    def scope(self, table: Table) -> str:
        """Return the name of the target: tables of two schemas may be meant for one."""
        return qualify(self._schema or table.schema, table.name)

    # What should be there

    async def entries(self, changes: Sequence[Change]) -> Sequence[_Entry]:
        """Say which rows should stand there; the target reads the texts, and says how it would write them."""
        return await self._ask(lambda: self._entries(changes))

    async def _entries(self, changes: Sequence[Change]) -> Sequence[_Entry]:
        found: list[_Entry] = []
        conn, rows = await self._of(changes[0].table)
        texts: list[list[str | None]] = []
        for change in changes:
            try:
                texts.append(_texts(change, rows))
                found.append((b"", None))
            except SinkRejected as error:
                found.append(error)
        places = [place for place, one in enumerate(found) if not isinstance(one, SinkRejected)]
        for place, printed in zip(places, await self._printed(conn, rows, texts), strict=True):
            if isinstance(printed, SinkRejected):
                found[place] = printed
            else:
                found[place] = (_name([printed[at] for at in rows.key_places]), _value(rows, printed))
        return found

    async def _printed(
        self, conn: Connection, rows: TargetRows, texts: Sequence[Sequence[str | None]]
    ) -> list[Texts | SinkRejected]:
        """Ask for all at once; in halves, where the target refuses one."""
        if not texts:
            return []
        try:
            return [*await rows.printed(conn, texts)]
        except Exception as error:
            if not is_refusal(error):
                raise
            if len(texts) == 1:
                return [SinkRejected(f"{rows.table.full_name}: the target does not take a value of a row")]
        middle = len(texts) // 2
        return [*await self._printed(conn, rows, texts[:middle]), *await self._printed(conn, rows, texts[middle:])]

    def touches(self, change: Change) -> Sequence[bytes]:
        """Name the row of a change, and the one that it was; nothing where the table has no key."""
        key = key_of(change.table)
        places = [change.table.index_of[name] for name in key]
        names = []
        for row in (change.new, change.old):
            cells = _cells(row) if row is not None and key else []
            if cells and all(isinstance(cells[place], bytes) for place in places):
                names.append(_name([_bytes(cells[place]) for place in places]))
        return names

    def keys_of(self, table: Table, names: Sequence[bytes]) -> Sequence[Mapping[str, str] | str]:
        """Read the key out of names; a text that is not UTF-8 is nobody's key."""
        key = key_of(table)
        if set(key) != set(table.primary_key):
            return [f"rows of {table.full_name} are not told by its primary key"] * len(names)
        found = [json.loads(name) for name in names]
        return [dict(zip(key, one, strict=True)) if _can_be_asked(one) else "its key is not UTF-8" for one in found]

    # What is there

    async def held(self, table: Table, names: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return the rows with some names; one that is only equal by its type, as 1.0 is to 1.00, is another one."""
        return await self._ask(lambda: self._held(table, names))

    async def _held(self, table: Table, names: Sequence[bytes]) -> Sequence[bytes | None]:
        conn, rows = await self._of(table)
        values: list[bytes | None] = [None] * len(names)
        asked = [(place, key) for place, name in enumerate(names) if _can_be_asked(key := json.loads(name))]
        for place, printed in await rows.found(conn, [key for _, key in asked]):
            at = asked[place][0]
            if _name([printed[column] for column in rows.key_places]) == names[at]:
                values[at] = _value(rows, printed)
        return values

    async def names_after(self, table: Table, cursor: bytes) -> tuple[Sequence[bytes], bytes]:
        """Return the next names in the order of the target's own index."""
        return await self._ask(lambda: self._names_after(table, cursor))

    async def _names_after(self, table: Table, cursor: bytes) -> tuple[Sequence[bytes], bytes]:
        conn, rows = await self._of(table)
        keys = await rows.keys_after(conn, rows.order, json.loads(cursor) if cursor else (), (), NAMES)
        places = [rows.order.index(name) for name in rows.key]
        names = [_name([key[place] for place in places]) for key in keys]
        return names, _name(keys[-1]) if len(keys) == NAMES else b""

    # Many rows at once

    async def digest_way(self, table: Table, key: Sequence[str]) -> str:
        """Say how rows are digested here; "" where a row does not print as the source's does, or not in its order."""
        return await self._ask(lambda: self._digest_way(table, tuple(key)))

    async def _digest_way(self, table: Table, key: Bound) -> str:
        conn, rows = await self._of(table)
        alike = rows.alike and rows.orders_as(key) and len(rows.columns) == len(table.columns)
        return await way_of(conn) if alike else ""

    async def digests(self, table: Table, key: Sequence[str], bounds: Sequence[Bound]) -> Sequence[tuple[int, int]]:
        """Let the target sum up rows."""
        return await self._ask(lambda: self._digests(table, key, bounds))

    async def _digests(self, table: Table, key: Sequence[str], bounds: Sequence[Bound]) -> Sequence[tuple[int, int]]:
        conn, rows = await self._of(table)
        try:
            return await target_parts(conn, rows, key, bounds)
        except TooLong:
            return ()

    async def names_between(
        self, table: Table, key: Sequence[str], low: Bound, high: Bound
    ) -> tuple[Sequence[tuple[bytes, Bound]], Bound]:
        """Return the next names of a range, with their keys."""
        return await self._ask(lambda: self._names_between(table, key, low, high))

    async def _names_between(
        self, table: Table, key: Sequence[str], low: Bound, high: Bound
    ) -> tuple[Sequence[tuple[bytes, Bound]], Bound]:
        conn, rows = await self._of(table)
        keys = await rows.keys_after(conn, key, low, high, NAMES)
        places = [key.index(name) for name in rows.key]
        names = [(_name([one[place] for place in places]), _bound(one)) for one in keys]
        return names, names[-1][1] if len(keys) == NAMES else ()


def _texts(change: Change, rows: TargetRows) -> list[str | None]:
    """Return the texts of a row that are to be written. Raises SinkRejected where `write` would refuse it."""
    row, table = change.new, change.table
    assert row is not None
    cells = _cells(row)
    texts: list[str | None] = []
    for name in rows.columns:
        cell = cells[table.index_of[name]]
        if isinstance(cell, Missing) or (cell is None and name in rows.key):
            what = "is NULL, and part of the key" if cell is None else "has no value"
            raise SinkRejected(f"{table.full_name}.{name} {what}")
        try:
            texts.append(None if cell is None else cell.decode())
        except UnicodeDecodeError:
            raise SinkRejected(f"{table.full_name}.{name} holds a text that is not UTF-8") from None
    return texts


def _cells(row: Row) -> list[Cell]:
    try:
        return cells_of(row)
    except ValueError as error:
        raise SinkRejected(str(error), remedy="Let the source send text.") from error


def _bytes(cell: Cell) -> bytes | None:
    return cell if isinstance(cell, bytes) else None


def _name(key: Texts) -> bytes:
    return json.dumps([_text(cell) for cell in key]).encode()


def _bound(key: Texts) -> Bound:
    return tuple((text or b"").decode("utf-8", "surrogateescape") for text in key)


def _value(rows: TargetRows, printed: Texts) -> bytes:
    return json.dumps(dict(zip(rows.columns, map(_text, printed), strict=True))).encode()


def _text(cell: bytes | None) -> str | None:
    return None if cell is None else cell.decode("utf-8", "surrogateescape")


def _can_be_asked(key: Sequence[str]) -> bool:
    """Say whether a key is UTF-8; of another one no row of the source can be known by its name either."""
    return all(text.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in text) for text in key)
