"""
The outside form of a change: JSON that other programs read, stable and versioned.

    {"version": 1, "event_id": …, "operation": "update", "schema": "public", "table": "products",
     "position": "0/16B3748:0", "commit_time": "2026-11-22T10:00:00.5Z", "xid": 700,
     "key": {"id": 1}, "key_before": {"id": 7}, "new": {…}, "old": {…}, "unchanged": ["description"],
     "context": {"user": "ann"}}

`new` and `old` are null where there is no such row. A column without a value (UNCHANGED, ABSENT) is left out of
them, never written as null; the unchanged ones are named in `unchanged`. `key_before`, `unchanged` and `context` (what
the application said of the transaction) are there only when they say something.

How a value becomes JSON; nothing is lost, and a row still in the server's bytes and one made of Python values give
the same bytes:

| PostgreSQL                       | JSON                                                                       |
|----------------------------------|----------------------------------------------------------------------------|
| smallint, integer, bigint, oid   | number                                                                     |
| real, double precision           | number; "NaN", "Infinity", "-Infinity"                                     |
| numeric                          | string, digits as PostgreSQL writes them; "NaN", "Infinity", "-Infinity"   |
| boolean                          | true, false                                                                |
| json, jsonb                      | embedded as it is, digit for digit; line breaks between tokens are dropped |
| timestamp with time zone         | RFC 3339 in UTC, "2026-11-22T10:00:00.5Z"                                  |
| timestamp                        | the same without zone, "2026-11-22T10:00:00.5"                             |
| date, time, interval, uuid, …    | string as PostgreSQL writes it; so do infinity, BC and years after 9999    |
| bytea                            | base64                                                                     |
| arrays                           | list                                                                       |
| everything else                  | str() of the value                                                         |

Compiled where a C compiler is at hand (`envelope.pxd` beside this file); the same file runs uncompiled.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec

from backend_watcher.events.change import Change
from backend_watcher.events.row import ABSENT, UNCHANGED, Missing, Row
from backend_watcher.events.table import Column, Table

VERSION = 1

WRITERS_MAX = 10_000
"""Prepared writers kept; one per shape of a table and choice of columns."""

# How a column is written. LEFT_OUT: not among the chosen columns.
LEFT_OUT, COPY, QUOTE, TEXT, BOOL, MOMENT, LOCAL, JSON, OTHER = range(9)

KIND_UNCHANGED = 117  # u
KIND_TEXT = 116  # t
KIND_BINARY = 98  # b

BLANK = 32
PLUS = 43
ZERO = 48

JSON_OIDS = frozenset({114, 3802})
_CODES = dict.fromkeys((20, 21, 23, 26, 28, 29, 5069), COPY)
_CODES |= dict.fromkeys((18, 19, 25, 1042, 1043), TEXT)
# Ranges and multiranges, as the server writes them: its text is that of the Python value too.
_CODES |= dict.fromkeys((3904, 3906, 3908, 3910, 3912, 3926, 4451, 4532, 4533, 4534, 4535, 4536), TEXT)
_CODES |= dict.fromkeys((1700, 2950, 1082, 1083, 1186), QUOTE)
# jsonb is written by the server without line breaks, json as the user wrote it.
_CODES |= {16: BOOL, 114: JSON, 1114: LOCAL, 1184: MOMENT, 3802: COPY}

_encode_text = msgspec.json.Encoder().encode
_encode_json = msgspec.json.Encoder(decimal_format="number").encode
_format = msgspec.json.format


class Incomplete(ValueError):
    """A whole row was asked for, and a column of it has no value here: UNCHANGED or ABSENT."""

    def __init__(self, column: str, state: Missing) -> None:
        super().__init__(f"column {column} is {state.value}: it has no value here")
        self.column = column
        self.state = state


class RowWriter:
    """
    Writes rows of one table as JSON, or as one text per column.

    `columns` chooses columns; all of them if None. Raises ValueError for one the table does not have. Where a row
    lacks a value, the one of `old` is taken if it has it, as it does under REPLICA IDENTITY FULL.
    """

    __slots__ = ("_closes", "_codes", "_count", "_heads", "_index_of", "_kinds", "_opens", "columns", "table")

    def __init__(self, table: Table, columns: Sequence[str] | None = None) -> None:
        unknown = [name for name in columns or () if name not in table.index_of]
        if unknown:
            raise ValueError(f"{table.full_name} has no column {unknown[0]!r}")
        self.table = table
        self._index_of: dict[str, int] = table.index_of
        self.columns: tuple[Column, ...] = table.columns
        chosen = set(table.index_of if columns is None else columns)
        self._count = len(table.columns)
        self._kinds = [_CODES.get(c.type_oid, OTHER) for c in table.columns]
        self._codes = [k if c.name in chosen else LEFT_OUT for c, k in zip(table.columns, self._kinds, strict=True)]
        self._heads = [b"," + _encode_text(c.name) + b":" for c in table.columns]
        quotes = [b"" if code == COPY else b'"' for code in self._codes]
        self._opens = [head + quote for head, quote in zip(self._heads, quotes, strict=True)]
        self._closes = quotes

    def json(self, row: Row, old: Row | None = None, whole: bool = False) -> bytes:
        """Write a JSON object; a column without a value is left out, or, if `whole`, raises Incomplete."""
        if row._values is not None:
            return self._json_of_values(row, old, whole)
        data = row._data
        at = row._start + 2
        codes, heads, opens, closes = self._codes, self._heads, self._opens, self._closes
        parts: list[bytes] = []
        for index in range(self._count):
            kind = data[at]
            at += 1
            size = 0
            if kind in (KIND_TEXT, KIND_BINARY):
                size = (data[at] << 24) | (data[at + 1] << 16) | (data[at + 2] << 8) | data[at + 3]
                at += 4
            code = codes[index]
            start = at
            at += size
            if code == LEFT_OUT:
                continue
            if kind != KIND_TEXT:
                cell = self._rare(row, old, index, kind, data[start:at], whole)
                if cell is not None:
                    parts.append(heads[index])
                    parts.append(cell)
            elif code <= QUOTE:
                parts.append(opens[index])
                parts.append(data[start:at])
                parts.append(closes[index])
            elif code == TEXT:
                parts.append(heads[index])
                parts.append(_encode_text(data[start:at].decode()))
            elif (
                code == MOMENT
                and size >= 22
                and data[start + 10] == BLANK
                and data[at - 3] == PLUS
                and data[at - 2] == data[at - 1] == ZERO
            ):
                parts.append(opens[index])
                parts.append(data[start : start + 10])
                parts.append(b"T")
                parts.append(data[start + 11 : at - 3])
                parts.append(b'Z"')
            else:
                parts.append(heads[index])
                parts.append(self._transcribe(code, index, data[start:at]))
        return _object(parts)

    def _json_of_values(self, row: Row, old: Row | None, whole: bool) -> bytes:
        """Write a row that a transform made: Python values instead of the server's bytes."""
        parts: list[bytes] = []
        for index in range(self._count):
            if self._codes[index] == LEFT_OUT:
                continue
            column = self.columns[index]
            value = row[column.name]
            if isinstance(value, Missing):
                cell = self._from_old(old, index, value, whole)
                if cell is None:
                    continue
            else:
                cell = value_to_json(value, column.type_oid)
            parts.append(self._heads[index])
            parts.append(cell)
        return _object(parts)

    def unchanged(self, row: Row) -> list[str]:
        """Return the names of the columns that are UNCHANGED."""
        if row._values is not None:
            return [name for name, value in row._values.items() if value is UNCHANGED]
        names: list[str] = []
        data = row._data
        at = row._start + 2
        for index in range(self._count):
            kind = data[at]
            at += 1
            if kind in (KIND_TEXT, KIND_BINARY):
                size = (data[at] << 24) | (data[at + 1] << 16) | (data[at + 2] << 8) | data[at + 3]
                at += 4 + size
            elif kind == KIND_UNCHANGED:
                names.append(self.columns[index].name)
        return names

    def _rare(self, row: Row, old: Row | None, index: int, kind: int, cell: bytes, whole: bool) -> bytes | None:
        """Write a cell that is not text: binary, NULL, or no value (None)."""
        column = self.columns[index]
        if kind == KIND_BINARY:
            return value_to_json(column.load_binary(cell), column.type_oid)
        if kind == KIND_UNCHANGED:
            return self._from_old(old, index, UNCHANGED, whole)
        if row._key_only and not self.table.in_key(index):
            return self._from_old(old, index, ABSENT, whole)
        return b"null"

    def _from_old(self, old: Row | None, index: int, state: Missing, whole: bool) -> bytes | None:
        column = self.columns[index]
        if old is not None and old.has_value(column.name):
            return self._cell_json(old.raw(column.name), old, index)
        if whole:
            raise Incomplete(column.name, state)
        return None

    def _cell_json(self, raw: Any, row: Row, index: int) -> bytes:
        """Write one value as `Row.raw` gives it."""
        column = self.columns[index]
        if raw is None:
            return b"null"
        code = self._kinds[index]
        if row._values is not None or code == OTHER:
            return value_to_json(row[column.name], column.type_oid)
        if code == COPY:
            return bytes(raw)
        if code == TEXT:
            return _encode_text(raw.decode())
        if code == QUOTE:
            return b'"%b"' % raw
        return self._transcribe(code, index, raw)

    def _transcribe(self, code: int, index: int, cell: bytes) -> bytes:
        """Write the text form of a type that needs more than a copy."""
        if code == BOOL:
            return b"true" if cell == b"t" else b"false"
        if code == JSON:
            # A line break between tokens is allowed in a json column, and would tear a line of JSON in two.
            return _format(cell, indent=-1) if b"\n" in cell or b"\r" in cell else cell
        if code in (MOMENT, LOCAL):
            return b'"' + _moment(cell, code == MOMENT) + b'"'
        column = self.columns[index]
        return value_to_json(column.load_text(cell), column.type_oid)

    def text(self, row: Row, name: str, old: Row | None = None) -> Any:
        """
        Write one column as bare text: what `json` writes, without the quotes and escapes of a string.

        None for NULL; UNCHANGED or ABSENT where neither row has a value.
        """
        raw = row.raw(name)
        if raw is UNCHANGED or raw is ABSENT:
            if old is None or not old.has_value(name):
                return raw
            row = old
            raw = row.raw(name)
        if raw is None:
            return None
        index = self._index_of[name]
        code = self._kinds[index]
        if row._values is None and code in (COPY, QUOTE, TEXT):
            return raw
        cell = self._cell_json(raw, row, index)
        if cell[:1] != b'"' or self.columns[index].type_oid in JSON_OIDS:
            return cell
        return cell[1 : len(cell) - 1] if b"\\" not in cell else msgspec.json.decode(cell, type=str).encode()

    def texts(self, row: Row, old: Row | None = None) -> list[tuple[str, Any]]:
        """Write every chosen column as `text` does."""
        codes = self._codes
        return [
            (column.name, self.text(row, column.name, old))
            for index, column in enumerate(self.columns)
            if codes[index] != LEFT_OUT
        ]


_writers: dict[tuple[int, tuple[str, ...] | None], RowWriter] = {}


def writer_of(table: Table, columns: tuple[str, ...] | None = None) -> RowWriter:
    """Return the prepared writer for a table's rows; raises ValueError for a column it does not have."""
    key = (table.version, columns)
    writer = _writers.get(key)
    if writer is None:
        if len(_writers) >= WRITERS_MAX:
            _writers.clear()
        writer = _writers[key] = RowWriter(table, columns)
    return writer


def row_to_json(row: Row) -> bytes:
    """Write a row as one JSON object of the columns that have a value."""
    return writer_of(row.table).json(row)


def change_to_json(change: Change) -> bytes:
    """Write a change as one JSON object on one line, without a line break at its end."""
    table, transaction = change.table, change.transaction
    new, old = change.new, change.old
    head = {
        "version": VERSION,
        "event_id": change.event_id,
        "operation": change.operation.value,
        "schema": table.schema,
        "table": table.name,
        "position": str(change.position),
        "commit_time": _rfc3339(transaction.commit_time),
        "xid": transaction.xid,
    }
    keys = writer_of(table, table.primary_key)
    rows = writer_of(table)
    about = new if new is not None else old
    opening = _encode_text(head)
    parts = [opening[: len(opening) - 1], b',"key":', b"{}" if about is None else keys.json(about, old)]
    if old is not None and change.key_changed():
        parts += (b',"key_before":', keys.json(old))
    parts += (b',"new":', b"null" if new is None else rows.json(new))
    parts += (b',"old":', b"null" if old is None else rows.json(old))
    unchanged = [] if new is None else rows.unchanged(new)
    if unchanged:
        parts += (b',"unchanged":', _encode_text(unchanged))
    if transaction.context:
        parts += (b',"context":', _encode_text(dict(transaction.context)))
    parts.append(b"}")
    return b"".join(parts)


def value_to_json(value: Any, type_oid: int = 0) -> bytes:
    """Write one Python value; the type decides only whether a dict, list or scalar is a json column's."""
    if value is None:
        return b"null"
    if type_oid in JSON_OIDS:
        # Text of a kind of its own: a document that Python has no form for, as the server wrote it.
        return value.encode() if isinstance(value, str) and type(value) is not str else _encode_json(value)
    write = _WRITE.get(type(value))
    if write is not None:
        return write(value)
    for kind, inherited in _WRITE.items():
        if kind is not str and isinstance(value, kind) and not isinstance(value, Enum):
            return inherited(value)
    return _encode_text(str(value))


def _object(parts: list[bytes]) -> bytes:
    if not parts:
        return b"{}"
    # Every head begins with a comma; the first becomes the brace.
    parts[0] = b"{" + parts[0][1:]
    parts.append(b"}")
    return b"".join(parts)


def _moment(cell: bytes, zoned: bool) -> bytes:
    """Turn a timestamp as PostgreSQL writes it into RFC 3339, or leave it where RFC 3339 has no form for it."""
    if cell[10:11] != b" " or cell.endswith(b"BC"):
        return cell
    if not zoned:
        return cell[:10] + b"T" + cell[11:]
    if cell.endswith(b"+00"):
        return cell[:10] + b"T" + cell[11 : len(cell) - 3] + b"Z"
    try:
        return _rfc3339(datetime.fromisoformat(cell.decode()).astimezone(UTC)).encode()
    except (ValueError, OverflowError):
        return cell


def _rfc3339(moment: datetime) -> str:
    if moment.tzinfo is None:
        return _trim(moment.isoformat(), moment.microsecond)
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        # The first or last day of what Python can hold: the zone stays.
        return moment.isoformat()
    return _trim(moment.replace(tzinfo=None).isoformat(), moment.microsecond) + "Z"


def _trim(text: str, microsecond: int) -> str:
    """Drop the zeros at the end of a fraction, as PostgreSQL does."""
    return text.rstrip("0") if microsecond else text


def _float_json(value: float) -> bytes:
    if value != value:
        return b'"NaN"'
    if value in (float("inf"), float("-inf")):
        return b'"Infinity"' if value > 0 else b'"-Infinity"'
    return _encode_text(value)


def _decimal_json(value: Decimal) -> bytes:
    return b'"%b"' % (format(value, "f") if value.is_finite() else str(value)).encode()


def _time_json(value: time) -> bytes:
    text = value.replace(tzinfo=None).isoformat()
    zone = value.isoformat()[len(text) :].removesuffix(":00")
    return b'"%b"' % (_trim(text, value.microsecond) + zone).encode()


def _interval_json(value: timedelta) -> bytes:
    """Write `-1 days +02:03:04.5`, as PostgreSQL's own style does."""
    micros = (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds
    days, rest = divmod(abs(micros), 86_400_000_000)
    minutes, micro_seconds = divmod(rest, 60_000_000)
    sign = "-" if micros < 0 else ""
    clock = f"{sign}{minutes // 60:02d}:{minutes % 60:02d}:{micro_seconds // 1_000_000:02d}"
    if micro_seconds % 1_000_000:
        clock += f".{micro_seconds % 1_000_000:06d}".rstrip("0")
    if not days:
        return b'"%b"' % clock.encode()
    named = f"{sign}{days} day{'s' if sign or days != 1 else ''}"
    return b'"%b"' % (f"{named} {clock}" if rest else named).encode()


def _list_json(value: Sequence[Any]) -> bytes:
    return b"[" + b",".join([value_to_json(item) for item in value]) + b"]"


def _bytes_json(value: bytes) -> bytes:
    return b'"' + binascii.b2a_base64(value, newline=False) + b'"'


_WRITE: dict[type, Callable[[Any], bytes]] = {
    bool: lambda value: b"true" if value else b"false",
    int: lambda value: str(int(value)).encode(),
    str: _encode_text,
    float: _float_json,
    Decimal: _decimal_json,
    datetime: lambda value: b'"%b"' % _rfc3339(value).encode(),
    date: lambda value: b'"%b"' % value.isoformat().encode(),
    time: _time_json,
    timedelta: _interval_json,
    bytes: _bytes_json,
    list: _list_json,
    tuple: _list_json,
    dict: _encode_json,
}
