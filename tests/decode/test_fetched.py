"""COPY's text form becomes the rows that the stream would have brought."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.decode.assemble import Assembler
from backend_watcher.decode.chunks import expand
from backend_watcher.decode.fetched import fetched_rows, gone_rows, without
from backend_watcher.decode.messages import BACKFILL
from backend_watcher.decode.tables import make_table
from backend_watcher.decode.whole import begin_message, commit_message
from backend_watcher.errors import ProtocolError
from backend_watcher.events.change import Change, Operation
from backend_watcher.events.packed import pack, unpack
from backend_watcher.events.position import Position
from backend_watcher.events.row import ABSENT
from backend_watcher.events.table import Table
from backend_watcher.events.transaction import Stream

STREAM = Stream("7", "shop")
TABLE = make_table(42, "public", "orders", "d", [("id", 25, -1, True), ("note", 25, -1, False)], ["id"])
BESIDE = {8: b"\\b", 9: b"\\t", 10: b"\\n", 11: b"\\v", 12: b"\\f", 13: b"\\r", 92: b"\\\\"}

values = st.one_of(st.none(), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))


def line_of(row: tuple[str | None, ...]) -> bytes:
    """Write a row as the manual says that COPY does."""
    cells = [
        b"\\N" if value is None else b"".join(BESIDE.get(byte, bytes([byte])) for byte in value.encode())
        for value in row
    ]
    return b"\t".join(cells) + b"\n"


def message(prefix: str, content: bytes, flags: int = 1) -> bytes:
    """Return the XLogData of a logical message."""
    body = b"M" + struct.pack(">BQ", flags, 99) + prefix.encode() + b"\0" + struct.pack(">I", len(content)) + content
    return b"w" + bytes(24) + body


def changes_of(data: bytes, sizes: list[int], content: bytes = b"{}", table: Table = TABLE) -> list[Change]:
    """Put rows into the stream behind a watermark, and take them out again."""
    assembler = Assembler(Position(0, -1))
    begin, mark, end = begin_message(500, 7, 11), message(BACKFILL, content), commit_message(0, 500, 510, 7)
    assert assembler.feed(begin + mark + end, [len(begin), len(mark), len(end)]) == 2
    assert assembler.watermark == content
    assembler.watermark = None
    assembler.redefine(table)
    assembler.reading = True
    assert assembler.feed(data, sizes) == len(sizes)
    assembler.reading = False
    assert assembler.feed(end, [len(end)]) == 1
    chunk = assembler.take()
    assert chunk is not None
    assert chunk.commit_end_lsn == 510
    return expand(chunk.payload, {table.version: table for table in chunk.tables}, STREAM)


@given(st.lists(st.tuples(values, values), min_size=1, max_size=20))
def test_rows_come_out_as_they_were(rows: list[tuple[str | None, str | None]]) -> None:
    data, sizes = fetched_rows(42, 2, [line_of(row) for row in rows])
    changes = changes_of(data, sizes)
    assert [(change.row["id"], change.row["note"]) for change in changes] == rows
    assert {change.operation for change in changes} == {Operation.READ}
    assert [change.position for change in changes] == [Position(500, number) for number in range(len(rows))]


def test_what_was_said_of_the_watermark_is_said_of_its_rows() -> None:
    data, sizes = fetched_rows(42, 2, [b"1\tone\n"])
    (change,) = changes_of(data, sizes, b'{"backfill":"b1","subscriptions":["cache"]}')
    assert change.context == {"backfill": "b1", "subscriptions": ["cache"]}
    assert change.key_bytes() == b"1"
    assert change.old is None


def test_long_values_have_their_whole_size() -> None:
    data, sizes = fetched_rows(42, 2, [b"1\t" + b"x" * 70_000 + b"\n"])
    (change,) = changes_of(data, sizes)
    assert change.row["note"] == "x" * 70_000


keys = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(st.lists(st.tuples(keys, keys), min_size=1, max_size=20), st.sampled_from("dfi"))
def test_keys_that_no_row_has_come_out_as_deletes(gone: list[tuple[str, str]], identity: str) -> None:
    columns = [("b", 25, -1, True), ("note", 25, -1, identity == "f"), ("a", 25, -1, True)]
    table = make_table(42, "public", "pairs", identity, columns, ["a", "b"])
    data, sizes = gone_rows(42, 3, [2, 0], [line_of(key) for key in gone])
    changes = changes_of(data, sizes, b'{"repair":"3"}', table)
    assert [change.key for change in changes] == gone
    for number, change in enumerate(changes):
        assert (change.operation, change.new, change.derived) == (Operation.DELETE, None, True)
        # Under FULL too: what was not asked for is not taken for NULL.
        assert change.row.to_dict() == {"a": gone[number][0], "b": gone[number][1], "note": ABSENT}
        assert change.row["note"] is ABSENT
        assert change.context == {"repair": "3"}
        assert change.position == Position(500, number)
        again = unpack(pack(change), table, STREAM)
        assert (again.derived, again.row.to_dict()) == (True, change.row.to_dict())


def test_a_key_that_no_row_has_is_named_as_its_row_is() -> None:
    (read,) = changes_of(*fetched_rows(42, 2, [b"a\\tb\tone\n"]))
    (gone,) = changes_of(*gone_rows(42, 2, [0], [b"a\\tb\n"]))
    assert gone.key_bytes() == read.key_bytes() == b"a\tb"
    assert gone.identities() == read.identities()


@pytest.mark.parametrize("line", [b"1\t2\n", b"\\N\n"])
def test_a_key_of_another_shape_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        gone_rows(42, 2, [0], [line])


@pytest.mark.parametrize("line", [b"1\n", b"1\t2\t3\n", b"1\t2", b"", b"\n"])
def test_a_line_of_another_shape_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        fetched_rows(42, 2, [line])


def test_a_table_without_columns_has_rows_all_the_same() -> None:
    data, sizes = fetched_rows(42, 0, [b"\n", b"\n"])
    assert len(sizes) == 2
    assert len(data) == sum(sizes)


@given(st.lists(st.booleans(), max_size=12))
def test_rows_can_be_left_out(kept: list[bool]) -> None:
    lines = [b"%d\t%d\n" % (number, number) for number in range(len(kept))]
    data, sizes = fetched_rows(42, 2, lines)
    left = without(data, sizes, lambda number: not kept[number])
    assert left == fetched_rows(42, 2, [line for line, keep in zip(lines, kept, strict=True) if keep])


def test_the_server_cannot_send_such_rows_itself() -> None:
    for data, sizes in (fetched_rows(42, 2, [b"1\tone\n"]), gone_rows(42, 2, [0], [b"1\n"])):
        assembler = Assembler(Position(0, -1))
        begin = begin_message(500, 7, 11)
        assembler.feed(begin, [len(begin)])
        assembler.redefine(TABLE)
        with pytest.raises(ProtocolError, match="unknown"):
            assembler.feed(data, sizes)


def test_a_watermark_outside_a_transaction_is_not_one() -> None:
    assembler = Assembler(Position(0, -1))
    mark = message(BACKFILL, b"{}", flags=0)
    assert assembler.feed(mark, [len(mark)]) == 1
    assert assembler.watermark is None
