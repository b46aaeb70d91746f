"""
Rows of the outbox become the messages that logical decoding would have sent of the same changes. Pure.

A row is kept as PostgreSQL writes a composite value (manual, chapter "Composite Types"): the text of each column, as a
logical decoding session has it, between commas; nothing between two commas is NULL, what holds anything special is in
double quotes, with those and backslashes doubled. The messages are laid out as the manual says, chapter "Logical
Replication Message Formats"; old rows are whole, as with REPLICA IDENTITY FULL.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from backend_watcher.errors import ProtocolError

_XLOG_DATA = struct.Struct(">cQQq")
_COLUMN = struct.Struct(">cI")
_FIELD = re.compile(rb'"(?:[^"\\]|""|\\.)*"|[^",()\\]*', re.DOTALL)
_ESCAPED = re.compile(rb'""|\\(.)', re.DOTALL)
_NULL = b"n"
_IDENTITY = 1


@dataclass(frozen=True, slots=True)
class ShapeColumn:
    """A column as the catalog had it; `sent` is false for a generated one, which logical decoding leaves out."""

    name: str
    type_oid: int
    modifier: int
    sent: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """How a table looked when a row was written."""

    number: int
    relation_oid: int
    schema: str
    name: str
    columns: tuple[ShapeColumn, ...]

    @property
    def all_sent(self) -> bool:
        """No column is left out."""
        return all(column.sent for column in self.columns)


def read_record(text: bytes, columns: int) -> list[bytes | None]:
    """Read the text of a composite value with so many columns. Raises ProtocolError."""
    if text[:1] != b"(" or text[-1:] != b")":
        raise ProtocolError("a row of the outbox that is no composite value", message_type="outbox")
    inner = text[1:-1]
    values = _read_quoted(inner) if b'"' in inner else [field or None for field in inner.split(b",")]
    if columns == 0 and values == [None]:
        return []
    if len(values) != columns:
        raise ProtocolError(
            f"a row of the outbox has {len(values)} columns instead of {columns}", message_type="outbox"
        )
    return values


def _read_quoted(inner: bytes) -> list[bytes | None]:
    values: list[bytes | None] = []
    at = 0
    while True:
        match = _FIELD.match(inner, at)
        assert match is not None
        field, at = match[0], match.end()
        if field[:1] == b'"':
            values.append(_ESCAPED.sub(lambda found: found[1] or b'"', field[1:-1]))
        else:
            values.append(field or None)
        if at == len(inner):
            return values
        if inner[at : at + 1] != b",":
            raise ProtocolError("a row of the outbox that cannot be read", offset=at + 1, message_type="outbox")
        at += 1


def relation_message(shape: Shape) -> bytes:
    """Return the Relation that describes a shape."""
    sent = [column for column in shape.columns if column.sent]
    parts = [
        b"R" + struct.pack(">I", shape.relation_oid),
        _string(shape.schema) + _string(shape.name) + b"f" + struct.pack(">H", len(sent)),
    ]
    parts += [
        bytes([_IDENTITY]) + _string(column.name) + struct.pack(">Ii", column.type_oid, column.modifier)
        for column in sent
    ]
    return _wrapped(b"".join(parts))


def row_message(operation: str, shape: Shape, old: bytes | None, new: bytes | None) -> bytes:
    """Return the Insert, Update, Delete or Truncate of one row of the outbox. Raises ProtocolError."""
    oid = struct.pack(">I", shape.relation_oid)
    if operation == "T":
        return _wrapped(b"T" + struct.pack(">IB", 1, 0) + oid)
    if operation not in "IUD" or (old is None) != (operation == "I") or (new is None) != (operation == "D"):
        raise ProtocolError(f"a row of the outbox with the operation {operation!r}", message_type="outbox")
    parts = [operation.encode(), oid]
    if old is not None:
        parts += [b"O", _tuple(shape, old)]
    if new is not None:
        parts += [b"N", _tuple(shape, new)]
    return _wrapped(b"".join(parts))


def said_message(prefix: str, content: bytes) -> bytes:
    """Return the transactional Message that says `content`."""
    return _wrapped(b"M" + struct.pack(">BQ", 1, 0) + _string(prefix) + struct.pack(">I", len(content)) + content)


def _tuple(shape: Shape, text: bytes) -> bytes:
    values: Sequence[bytes | None] = read_record(text, len(shape.columns))
    if not shape.all_sent:
        values = [value for value, column in zip(values, shape.columns, strict=True) if column.sent]
    pack = _COLUMN.pack
    parts = [struct.pack(">H", len(values))]
    parts += [_NULL if value is None else pack(b"t", len(value)) + value for value in values]
    return b"".join(parts)


def _string(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape") + b"\0"


def _wrapped(message: bytes) -> bytes:
    # Where in the WAL it would be is nobody's concern: a change's place is its transaction's.
    return _XLOG_DATA.pack(b"w", 0, 0, 0) + message
