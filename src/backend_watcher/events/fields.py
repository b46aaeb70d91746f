"""
Rows as COPY in binary format takes them, into columns of type `text`: the source's bytes, no value is made.

TupleData and COPY's binary tuples (manual, chapters "Logical Replication Message Formats" and "COPY") differ in one
byte a column: the kind. A field is a 32-bit length and the text, with length -1 for NULL.

Compiled where a C compiler is at hand (`fields.pxd` beside this file); the same file runs uncompiled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime, time
from typing import Any, TypeAlias

from backend_watcher.events.row import ABSENT, UNCHANGED, Missing, Row

Cell: TypeAlias = bytes | Missing | None

NULL_FIELD = b"\xff\xff\xff\xff"
HIGHEST = 255
"""The first byte of that length, and of no other: no value has 16 MB times 255."""

NULL_TEXT = b"\\N"

BACKSLASH, TAB, NEWLINE, RETURN = 92, 9, 10, 13

# Those of row.py once more: compiled, these are C numbers, and those cannot be imported.
KIND_NULL = 110
KIND_TEXT = 116


def fields_of(row: Row) -> bytes | None:
    """Return all columns as fields; None where one has no text here: not sent, binary, or a transform's value."""
    if row._values is not None:
        return None
    data = row._data
    at = row._start
    count = (data[at] << 8) | data[at + 1]
    at += 2
    parts = []
    for _ in range(count):
        kind = data[at]
        if kind == KIND_TEXT:
            size = (data[at + 1] << 24) | (data[at + 2] << 16) | (data[at + 3] << 8) | data[at + 4]
            parts.append(data[at + 1 : at + 5 + size])
            at += 5 + size
        elif kind == KIND_NULL:
            parts.append(NULL_FIELD)
            at += 1
        else:
            return None
    return b"".join(parts)


def cells_of(row: Row) -> list[Cell]:
    """
    Return the text of each column as bytes, or None, UNCHANGED, ABSENT.

    Raises ValueError where the source sent a value in binary format.
    """
    if row._values is not None:
        return [_text_of(value) for value in row._values.values()]
    cells: list[Cell] = []
    for index in range(len(row.table.columns)):
        if row.is_binary_at(index):
            raise ValueError(f"{row.table.full_name}.{row.table.columns[index].name} was sent in binary format")
        cells.append(row.raw_at(index))
    return cells


def join_cells(cells: Sequence[Cell]) -> bytes:
    """Write cells as fields; what has no value here becomes NULL, and must not be read there."""
    return b"".join(
        [b"%b%b" % (len(cell).to_bytes(4, "big"), cell) if isinstance(cell, bytes) else NULL_FIELD for cell in cells]
    )


def text_line(fields: bytes) -> bytes:
    """Return fields as one line of COPY's text format, for columns of any type (manual, chapter "COPY")."""
    parts = []
    size_of = len(fields)
    at = 0
    while at < size_of:
        if fields[at] == HIGHEST:
            parts.append(NULL_TEXT)
            at += 4
            continue
        size = (fields[at] << 24) | (fields[at + 1] << 16) | (fields[at + 2] << 8) | fields[at + 3]
        at += 4
        text = fields[at : at + size]
        for place in range(at, at + size):
            byte = fields[place]
            if byte in (BACKSLASH, TAB, NEWLINE, RETURN):
                text = _escaped(text)
                break
        parts.append(text)
        at += size
    return b"\t".join(parts) + b"\n"


def _escaped(text: bytes) -> bytes:
    text = text.replace(b"\\", b"\\\\").replace(b"\t", b"\\t")
    return text.replace(b"\n", b"\\n").replace(b"\r", b"\\r")


def split_fields(fields: bytes) -> list[Cell]:
    """Read what `fields_of` wrote."""
    cells: list[Cell] = []
    at = 0
    while at < len(fields):
        size = int.from_bytes(fields[at : at + 4], "big", signed=True)
        at += 4
        cells.append(None if size < 0 else fields[at : at + size])
        at += max(size, 0)
    return cells


def _text_of(value: Any) -> Cell:
    """Write a value that a transform made as PostgreSQL reads it."""
    if value is None or value is UNCHANGED or value is ABSENT:
        return value
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if isinstance(value, bytes | bytearray | memoryview):
        return b"\\x" + bytes(value).hex().encode()
    if isinstance(value, dict | list):
        return json.dumps(value, default=str).encode()
    if isinstance(value, datetime | date | time):
        return value.isoformat().encode()
    return str(value).encode()
