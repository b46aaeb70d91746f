"""The stored form: what it looks like, and that nothing else is taken for it."""

from __future__ import annotations

import struct
from array import array

import messages as wire
import pytest

from backend_watcher.decode.chunks import OpenTransaction, RelationMark, expand, pack
from backend_watcher.decode.messages import CONTEXT, CONTEXT_BYTES_MAX, MESSAGES
from backend_watcher.errors import JournalBroken
from backend_watcher.events.change import Change
from backend_watcher.events.message import FULL_NAME
from backend_watcher.events.position import Position
from backend_watcher.events.table import Table
from backend_watcher.testing.builders import STREAM, table

SKIPPED = 0x80000000
IGNORED = 0x40000000
TABLE = table("public.t", {"id": "text", "name": "text"}, relation_oid=5)
OTHER = table("public.other", {"id": "text"}, relation_oid=6)
TABLES = {TABLE.version: TABLE, OTHER.version: OTHER, MESSAGES.version: MESSAGES}
MARKS = [
    RelationMark(0, 5, TABLE.version),
    RelationMark(0, 6, OTHER.version),
    RelationMark(0, 0, MESSAGES.version),
]
ROW, KEY = wire.cells(["1", "x"]), wire.cells(["1", None])
OPEN = OpenTransaction(100, -7, 700, 3)
INSERT = wire.insert(5, ROW)


def payload(
    messages: list[bytes],
    start: OpenTransaction | None = OPEN,
    marks: list[RelationMark] = MARKS,
    skipped: tuple[int, ...] = (),
) -> bytes:
    data, sizes = wire.run(messages)
    marked = [size | SKIPPED if number in skipped else size for number, size in enumerate(sizes)]
    return pack(start, marks, array("I", marked), [data])


def positions(changes: list[Change]) -> list[Position]:
    return [change.position for change in changes]


def broken(data: bytes, tables: dict[int, Table] | None = None) -> str:
    with pytest.raises(JournalBroken) as caught:
        expand(data, TABLES if tables is None else tables, STREAM)
    return caught.value.message


def test_the_layout_is_for_ever() -> None:
    message = wire.xlog_data(INSERT)
    by_hand = (
        b"W2"
        + bytes.fromhex("00000044")  # 68 bytes of directory
        + bytes.fromhex("01 0000000000000064 FFFFFFFFFFFFFFF9 000002BC 00000003")
        + bytes.fromhex("00000007")
        + b'{"a":1}'
        + bytes.fromhex("00000001 00000000 00000005")
        + struct.pack(">Q", TABLE.version)
        + bytes.fromhex("00000002")
        + struct.pack(">II", len(message), len(message) | 0x80000000)
        + message * 2
    )
    said = OPEN._replace(context=b'{"a":1}')
    assert payload([INSERT, INSERT], said, marks=MARKS[:1], skipped=(1,)) == by_hand
    (change,) = expand(by_hand, TABLES, STREAM)
    assert change.transaction.context == {"a": 1}
    assert (change.position, change.transaction.commit_micros, change.transaction.xid) == (Position(100, 3), -7, 700)
    assert change.new is not None
    assert change.new.to_dict() == {"id": "1", "name": "x"}
    assert change.table is TABLE
    assert change.size_bytes == len(INSERT)


def test_the_layout_before_is_read_as_it_was_meant() -> None:
    """There a message had an ordinal, and was no change."""
    messages = [wire.xlog_data(one) for one in (wire.message("p", b"x", transactional=True), INSERT)]
    by_hand = (
        b"W1"
        + bytes.fromhex("00000039")  # 57 bytes of directory
        + bytes.fromhex("01 0000000000000064 FFFFFFFFFFFFFFF9 000002BC 00000003")
        + bytes.fromhex("00000001 00000000 00000005")
        + struct.pack(">Q", TABLE.version)
        + bytes.fromhex("00000002")
        + struct.pack(">II", *map(len, messages))
        + b"".join(messages)
    )
    (change,) = expand(by_hand, TABLES, STREAM)
    assert (change.position, change.transaction.xid) == (Position(100, 4), 700)
    assert dict(change.transaction.context) == {}


def test_a_message_is_a_change_of_a_table_of_its_own() -> None:
    messages = [wire.message("größer", b"\xff\0", transactional=True), wire.message("p", b"", transactional=False)]
    (change,) = expand(payload(messages), TABLES, STREAM)
    assert (change.operation, change.table.full_name, change.position) == ("insert", FULL_NAME, Position(100, 3))
    assert change.row.to_dict() == {"prefix": "größer", "content": b"\xff\0"}
    assert change.key == ("größer",)
    assert "without its table" in broken(payload(messages, marks=MARKS[:2]))


def test_what_is_said_of_a_transaction_counts_from_there_on() -> None:
    said = [wire.message(CONTEXT, text, transactional=True) for text in (b'{"user":"ann"}', b"[1]", b"{", b"")]
    messages = [
        INSERT,
        said[0],
        INSERT,
        wire.message("p", b"", transactional=True),
        *said[1:2],
        INSERT,
        said[2],
        INSERT,
    ]
    messages += [said[0], INSERT, said[3], INSERT, wire.commit(100, 110), wire.begin(200), INSERT]
    changes = expand(payload(messages), TABLES, STREAM)
    # A message of ours has no place in the order.
    assert positions(changes)[-2:] == [Position(100, 9), Position(200, 0)]
    ann: dict[str, str] = {"user": "ann"}
    assert [dict(change.transaction.context) for change in changes] == [{}, ann, ann, {}, {}, ann, {}, {}]


def test_a_message_that_nobody_wants_has_no_place() -> None:
    data, sizes = wire.run([INSERT, wire.message("p", b"", transactional=True), INSERT])
    ignored = array("I", [sizes[0], sizes[1] | IGNORED, sizes[2]])
    assert positions(expand(pack(OPEN, MARKS, ignored, [data]), TABLES, STREAM)) == [Position(100, 3), Position(100, 4)]


def test_too_much_said_is_left_out() -> None:
    long = b'{"a":"' + b"x" * CONTEXT_BYTES_MAX + b'"}'
    (change,) = expand(payload([wire.message(CONTEXT, long, transactional=True), INSERT]), TABLES, STREAM)
    assert dict(change.transaction.context) == {}


def test_ordinals_go_on_where_the_transaction_was_open() -> None:
    messages = [
        INSERT,
        wire.message("p", b"", transactional=True),
        wire.message("p", b"", transactional=False),
        wire.truncate([6, 5]),
        INSERT,
        wire.commit(100, 110),
        wire.begin(200),
        INSERT,
    ]
    places = positions(expand(payload(messages), TABLES, STREAM))
    assert places == [*(Position(100, n) for n in (3, 4, 5, 6, 7)), Position(200, 0)]


def test_skipped_changes_keep_their_ordinals() -> None:
    messages = [INSERT, wire.truncate([6, 5]), wire.message("p", b"", transactional=True), INSERT]
    assert positions(expand(payload(messages, skipped=(0, 1, 2)), TABLES, STREAM)) == [Position(100, 7)]


def test_a_chunk_may_begin_between_transactions() -> None:
    changes = expand(payload([wire.begin(7, -1, 9), INSERT], start=None), TABLES, STREAM)
    assert positions(changes) == [Position(7, 0)]
    assert changes[0].transaction.commit_micros == -1


def test_changes_of_one_transaction_share_it() -> None:
    first, second = expand(payload([INSERT, INSERT]), TABLES, STREAM)
    assert first.transaction is second.transaction
    assert first.transaction.stream is STREAM


def test_nothing_at_all() -> None:
    assert expand(payload([], marks=[]), {}, STREAM) == []


@pytest.mark.parametrize(
    ("message", "operation"),
    [
        (INSERT, "insert"),
        (wire.update(5, ROW), "update"),
        (wire.update(5, ROW, key=KEY), "update"),
        (wire.update(5, ROW, old=ROW), "update"),
        (wire.delete(5, key=KEY), "delete"),
        (wire.delete(5, old=ROW), "delete"),
    ],
)
def test_every_row_message(message: bytes, operation: str) -> None:
    (change,) = expand(payload([message]), TABLES, STREAM)
    assert change.operation == operation
    assert (change.new is None) == (operation == "delete")
    assert (change.old is None) == (b"K" not in message and b"O" not in message)
    # Whatever is cut off or put behind it, in the last message of a block as in the middle.
    for end in range(1, len(message)):
        broken(payload([message[:end]]))
        broken(payload([message[:end], INSERT]))
    assert "too many" in broken(payload([message + b"n"]))


@pytest.mark.parametrize("message", [wire.begin(200), wire.truncate([5, 6]), wire.message("", b"", transactional=True)])
def test_short_messages_of_other_types(message: bytes) -> None:
    ends = range(1, len(message)) if message[:1] != b"M" else [1]
    for end in ends:
        broken(payload([message[:end]]))
        broken(payload([message[:end], INSERT]))


def test_rows_that_do_not_fit_their_table() -> None:
    assert "columns where its table has 2" in broken(payload([wire.insert(5, wire.cells(["1"]))]))
    assert "columns where its table has 2" in broken(payload([wire.update(5, ROW, old=wire.cells(["1"] * 3))]))
    assert "unknown kind" in broken(payload([wire.insert(5, b"\0\2n?")]))
    assert "no new row" in broken(payload([b"I\0\0\0\5K" + ROW]))
    assert "no new row" in broken(payload([b"U\0\0\0\5K" + ROW + b"K" + ROW]))


def test_a_table_that_is_not_there() -> None:
    assert f"table version {TABLE.version}" in broken(payload([INSERT], marks=MARKS[:2]), {OTHER.version: OTHER})
    assert "relation 5 without" in broken(payload([INSERT], marks=MARKS[1:]))
    assert "relation 0 without" in broken(payload([INSERT, wire.insert(0, ROW)], marks=MARKS[:2]))
    assert "relation 7 without" in broken(payload([wire.truncate([5, 7])]))


@pytest.mark.parametrize("message", [INSERT, wire.truncate([5])])
def test_a_change_without_a_transaction(message: bytes) -> None:
    assert "without its table or transaction" in broken(payload([message], start=None))


def test_every_cut_of_a_payload() -> None:
    whole = payload([wire.begin(9), INSERT, wire.truncate([5]), wire.delete(5, key=KEY)])
    for end in range(len(whole)):
        broken(whole[:end])
    assert "too many" in broken(whole + b"\0")


def test_another_mark() -> None:
    assert "b'W3'" in broken(b"W3" + payload([INSERT])[2:])


@pytest.mark.parametrize("count", [0, 2, 3, 0x3FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_directory_that_does_not_add_up(count: int) -> None:
    whole = payload([INSERT], marks=MARKS[:1])
    at = 39 + 16
    lying = whole[:at] + struct.pack(">I", count) + whole[at + 4 :]
    broken(lying)
    # Also where the size of the directory tells the same lie.
    head = struct.pack(">I", min(at - 6 + 4 + 4 * count, 0xFFFFFFFF))
    broken(lying[:2] + head + lying[6:])


@pytest.mark.parametrize("size", [0, 25, 26, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_size_that_is_not_that_of_the_message(size: int) -> None:
    whole = payload([INSERT, INSERT], marks=MARKS[:1])
    at = 35 + 16 + 4
    broken(whole[:at] + struct.pack(">I", size) + whole[at + 4 :])
