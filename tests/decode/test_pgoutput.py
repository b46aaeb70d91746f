"""Every message of protocol 1 to 4 against bytes laid out by hand; tests/fuzz has those of real servers."""

from __future__ import annotations

import struct
from typing import Any

import messages as wire
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.decode.pgoutput import (
    Begin,
    Commit,
    Message,
    Origin,
    Prepared,
    Relation,
    RelationColumn,
    RowMessage,
    StreamAbort,
    StreamCommit,
    StreamStart,
    StreamStop,
    Truncate,
    Type,
    decode,
)
from backend_watcher.errors import ProtocolError

LSN, END = 0x16_B374D848, 0xFFFFFFFF_00000001
BEFORE_2000 = -86_400_000_000
COLUMNS = [("id", 20, -1, True), ("größe", 1043, 24, False)]
LONG_AGO, LATER = 0x8000_0000_0000_0000, 2**63 - 1

# message, whether it has a transaction id in a stream, what it says
PLAIN: list[tuple[bytes, Any]] = [
    (wire.begin(LSN, BEFORE_2000, 0xFFFFFFFF), Begin(LSN, BEFORE_2000, 0xFFFFFFFF)),
    (wire.begin(0, LATER, 3), Begin(0, LATER, 3)),
    (wire.commit(LSN, END, 5), Commit(0, LSN, END, 5)),
    (wire.origin(LSN, "node_a"), Origin(LSN, "node_a")),
    (wire.stream_start(800, True), StreamStart(800, True)),
    (wire.stream_start(800, False), StreamStart(800, False)),
    (wire.stream_stop(), StreamStop()),
    (wire.stream_commit(800, LSN, END, 9), StreamCommit(800, 0, LSN, END, 9)),
    (wire.stream_abort(800, 801), StreamAbort(800, 801, None, None)),
    (wire.stream_abort(800, 800, LSN, BEFORE_2000), StreamAbort(800, 800, LSN, BEFORE_2000)),
    (wire.begin_prepare(LSN, END, 9, 800, "g 1"), Prepared("b", 0, LSN, END, 9, None, 800, "g 1")),
    (wire.prepared("P", LSN, END, 9, 800, "g"), Prepared("P", 0, LSN, END, 9, None, 800, "g")),
    (wire.prepared("K", LSN, END, 9, 800, "g"), Prepared("K", 0, LSN, END, 9, None, 800, "g")),
    (wire.prepared("p", LSN, END, 9, 800, "g"), Prepared("p", 0, LSN, END, 9, None, 800, "g")),
    (wire.rollback_prepared(LSN, END, 9, -1, 800, "g"), Prepared("r", 0, LSN, END, 9, -1, 800, "g")),
]


def in_transaction(xid: int | None) -> list[tuple[bytes, Any]]:
    """The messages that carry the transaction's id in a stream; row offsets move by its four bytes."""
    key, row = wire.cells(["7", None]), wire.cells(["7", ...])
    at = 6 if xid is None else 10
    columns = (RelationColumn("id", 20, -1, True), RelationColumn("größe", 1043, 24, False))
    return [
        (wire.relation(16384, "public", "t", COLUMNS, "d", xid), Relation(xid, 16384, "public", "t", "d", columns)),
        (wire.relation(1, "", "pg_x", [], "n", xid), Relation(xid, 1, "pg_catalog", "pg_x", "n", ())),
        (wire.type_name(3_000_000_000, "s", "mood", xid), Type(xid, 3_000_000_000, "s", "mood")),
        (wire.type_name(5, "", "mood", xid), Type(xid, 5, "pg_catalog", "mood")),
        (wire.insert(16384, row, xid), RowMessage("I", xid, 16384, at, 0, False)),
        (wire.update(16384, row, within=xid), RowMessage("U", xid, 16384, at, 0, False)),
        (wire.update(1, row, key=key, within=xid), RowMessage("U", xid, 1, at + len(key) + 1, at, True)),
        (wire.update(1, row, old=row, within=xid), RowMessage("U", xid, 1, at + len(row) + 1, at, False)),
        (wire.delete(1, key=key, within=xid), RowMessage("D", xid, 1, 0, at, True)),
        (wire.delete(1, old=row, within=xid), RowMessage("D", xid, 1, 0, at, False)),
        (wire.truncate([16384], 0, xid), Truncate(xid, (16384,), False, False)),
        (wire.truncate([1, 2, 0xFFFFFFFF], 1, xid), Truncate(xid, (1, 2, 0xFFFFFFFF), True, False)),
        (wire.truncate([1], 2, xid), Truncate(xid, (1,), False, True)),
        (wire.truncate([1], 3, xid), Truncate(xid, (1,), True, True)),
        (
            wire.message("p", b"\0\xff", transactional=True, lsn=LSN, within=xid),
            Message(xid, True, LSN, "p", b"\0\xff"),
        ),
        (wire.message("", b"", transactional=False, lsn=END, within=xid), Message(xid, False, END, "", b"")),
    ]


EVERY = [
    *((data, False, said) for data, said in PLAIN),
    *((data, True, said) for data, said in PLAIN),
    *((data, False, said) for data, said in in_transaction(None)),
    *((data, True, said) for data, said in in_transaction(0xFFFFFFFE)),
]
IDS = [f"{data[:1].decode()}{' in a stream' if streamed else ''}" for data, streamed, _ in EVERY]


@pytest.mark.parametrize(("data", "in_stream", "said"), EVERY, ids=IDS)
def test_a_message(data: bytes, in_stream: bool, said: Any) -> None:
    assert decode(data, in_stream=in_stream) == said


def test_every_type_of_the_manual_is_here() -> None:
    assert {data[:1] for data, _, _ in EVERY} == {bytes([kind]) for kind in b"BCORYIUDTMSEcAbPKrp"}


@pytest.mark.parametrize(
    ("bytes_of_the_manual", "said"),
    [
        # Byte1('B') Int64 Int64 Int32
        ("42 00000000 0000002A 00000000 000F4240 000002BC", Begin(42, 1_000_000, 700)),
        # Byte1('I') Int32 Byte1('N') TupleData: Int16, then Byte1 and Int32 length for t and b, nothing for n and u
        ("49 00004000 4E 0004 74 00000001 37 62 00000002 FFFE 6E 75", RowMessage("I", None, 16384, 6, 0, False)),
        # Byte1('D') Int32 Byte1('K') TupleData
        ("44 00004000 4B 0001 74 00000001 37", RowMessage("D", None, 16384, 0, 6, True)),
        # Byte1('T') Int32 count, Int8 options, Int32 for each
        ("54 00000001 03 00004000", Truncate(None, (16384,), True, True)),
    ],
)
def test_bytes_written_out(bytes_of_the_manual: str, said: Any) -> None:
    assert decode(bytes.fromhex(bytes_of_the_manual)) == said


@given(st.lists(st.one_of(st.none(), st.just(...), st.binary(max_size=20)), max_size=9), st.sampled_from([b"t", b"b"]))
def test_rows_of_every_form_are_found(values: list[Any], kind: bytes) -> None:
    row = wire.cells(values, kind)
    told = decode(wire.update(5, row, old=row))
    assert isinstance(told, RowMessage)
    data = wire.update(5, row, old=row)
    assert data[told.old_at : told.old_at + len(row)] == row == data[told.new_at :]


@pytest.mark.parametrize(("data", "in_stream", "said"), EVERY, ids=IDS)
def test_every_cut_and_every_byte_too_many_is_refused(data: bytes, in_stream: bool, said: Any) -> None:
    for end in range(len(data)):
        if end == 9 and data[:1] == b"A" and len(data) == 25:
            continue  # exactly the form of versions 2 and 3
        with pytest.raises(ProtocolError) as caught:
            decode(data[:end], in_stream=in_stream)
        assert caught.value.message_type == data[: min(end, 1)].decode()
        assert 0 <= caught.value.offset <= end
    with pytest.raises(ProtocolError) as caught:
        decode(data + b"\0", in_stream=in_stream)
    assert caught.value.message_type == data[:1].decode()


@pytest.mark.parametrize("kind", [byte for byte in range(256) if byte not in b"BCORYIUDTMSEcAbPKrp"])
def test_an_unknown_type_is_refused(kind: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(bytes([kind]) + b"\0" * 40)
    assert (caught.value.message_type, caught.value.offset) == (chr(kind), 0)


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"I\0\0\0\1K" + wire.cells(["1"]), 5),
        (b"I\0\0\0\1O" + wire.cells(["1"]), 5),
        (b"U\0\0\0\1K" + wire.cells(["1"]) + b"K" + wire.cells(["1"]), 14),
        (b"U\0\0\0\1X" + wire.cells(["1"]), 5),
        (b"D\0\0\0\1N" + wire.cells(["1"]), 5),
        (wire.relation(1, "s", "t", [], "x"), 9),
        (wire.relation(1, "s", "t", [], "\0"), 9),
        (b"I\0\0\0\1N\0\1x", 8),
    ],
)
def test_a_field_that_says_nothing_known_is_refused(data: bytes, offset: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(data)
    assert (caught.value.message_type, caught.value.offset) == (chr(data[0]), offset)


def test_a_transaction_id_is_read_in_a_stream_only() -> None:
    data = wire.insert(16384, wire.cells(["1"]))
    with pytest.raises(ProtocolError):
        decode(data, in_stream=True)
    with pytest.raises(ProtocolError):
        decode(wire.insert(16384, wire.cells(["1"]), within=700))


@pytest.mark.parametrize("count", [3, 0x3FFFFFFF, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_truncate_of_more_tables_than_it_holds(count: int) -> None:
    with pytest.raises(ProtocolError):
        decode(b"T" + struct.pack(">IBII", count, 0, 1, 2))


def test_a_name_that_is_not_utf_8() -> None:
    told = decode(b"Y\0\0\0\1\xff\0\xfe\0")
    assert told == Type(None, 1, "\udcff", "\udcfe")


def test_a_relation_with_two_columns_of_one_name_is_refused() -> None:
    columns = [("id", 23, -1, True), ("name", 25, -1, False), ("id", 25, -1, False)]
    with pytest.raises(ProtocolError, match="two columns of one name"):
        decode(wire.relation(5, "public", "t", columns))
