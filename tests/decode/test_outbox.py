"""Rows of the outbox as messages: what composite texts hold, and that the assembler takes what is made of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.decode.outbox import (
    Shape,
    ShapeColumn,
    read_record,
    relation_message,
    row_message,
    said_message,
)
from backend_watcher.decode.pgoutput import Message, Relation, RowMessage, Truncate, decode
from backend_watcher.decode.reader import Reader
from backend_watcher.errors import ProtocolError

XLOG_HEADER = 25
SHAPE = Shape(
    7,
    16384,
    "public",
    "größe",
    (ShapeColumn("id", 20, -1, True), ShapeColumn("twice", 20, -1, False), ShapeColumn("name", 25, -1, True)),
)


def written(values: list[bytes | None]) -> bytes:
    """Write a composite value as record_out does, quoting more than it has to."""
    texts = []
    for value in values:
        if value is None:
            texts.append(b"")
        elif value == b"" or any(byte in b'"\\(), \t\n' for byte in value):
            texts.append(b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'""') + b'"')
        else:
            texts.append(value)
    return b"(" + b",".join(texts) + b")"


VALUES = st.lists(st.none() | st.binary(max_size=20) | st.text('a,"\\() ', max_size=8).map(str.encode), min_size=1)


@given(VALUES)
def test_a_composite_value_is_read_as_it_was_written(values: list[bytes | None]) -> None:
    assert read_record(written(values), len(values)) == values


def test_null_and_empty_are_two_things() -> None:
    assert read_record(b'(,"")', 2) == [None, b""]
    assert read_record(b"()", 1) == [None]
    assert read_record(b"()", 0) == []
    assert read_record(b'("a ""b"" \\\\ c",1)', 2) == [b'a "b" \\ c', b"1"]


@pytest.mark.parametrize(
    ("text", "columns"),
    [(b"", 1), (b"(1", 1), (b"1)", 1), (b"(1,2)", 1), (b"(1)", 2), (b'("a"b)', 1), (b'("a)', 1), (b"(1)", 0)],
)
def test_what_is_no_such_value_is_refused(text: bytes, columns: int) -> None:
    with pytest.raises(ProtocolError):
        read_record(text, columns)


def test_a_table_is_described_without_what_is_not_sent() -> None:
    relation = decode(relation_message(SHAPE)[XLOG_HEADER:])
    assert isinstance(relation, Relation)
    assert (relation.relation_oid, relation.schema, relation.name) == (16384, "public", "größe")
    assert relation.replica_identity == "f"
    assert [(c.name, c.type_oid, c.identity) for c in relation.columns] == [("id", 20, True), ("name", 25, True)]


def columns_at(message: bytes, at: int) -> list[bytes | None]:
    """Read the TupleData at an offset."""
    reader = Reader(message, at)
    values: list[bytes | None] = []
    for _ in range(reader.uint16()):
        kind = chr(reader.uint8())
        values.append(None if kind == "n" else reader.take(reader.uint32()))
    return values


def test_each_operation_becomes_its_message() -> None:
    insert = row_message("I", SHAPE, None, b"(1,2,)")[XLOG_HEADER:]
    update = row_message("U", SHAPE, b"(1,2,)", b'(1,2,"")')[XLOG_HEADER:]
    delete = row_message("D", SHAPE, b"(1,2,x)", None)[XLOG_HEADER:]
    for message, old, new in (
        (insert, None, [b"1", None]),
        (update, [b"1", None], [b"1", b""]),
        (delete, [b"1", b"x"], None),
    ):
        found = decode(message)
        assert isinstance(found, RowMessage)
        assert not found.old_key_only
        assert (columns_at(message, found.old_at) if found.old_at else None) == old
        assert (columns_at(message, found.new_at) if found.new_at else None) == new
    assert decode(row_message("T", SHAPE, None, None)[XLOG_HEADER:]) == Truncate(None, (16384,), False, False)


def test_a_saying_is_a_transactional_message() -> None:
    found = decode(said_message("orders", b"\0\xff")[XLOG_HEADER:])
    assert found == Message(None, True, 0, "orders", b"\0\xff")


@pytest.mark.parametrize(
    ("operation", "old", "new"),
    [("I", b"(1,2,3)", b"(1,2,3)"), ("I", None, None), ("U", None, b"(1,2,3)"), ("D", None, None), ("X", None, None)],
)
def test_a_row_that_contradicts_itself_is_refused(operation: str, old: bytes | None, new: bytes | None) -> None:
    with pytest.raises(ProtocolError, match="operation"):
        row_message(operation, SHAPE, old, new)
