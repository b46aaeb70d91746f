"""
The stored form of captured messages, and how it becomes changes again.

A chunk's payload is `W2`, the size of a directory, the directory, and then the CopyData messages just as the
server sent them. The directory holds what a reader needs to begin in the middle of the stream: the
transaction that was open with what was said of it, which version of each table is in force from which message on, and
the sizes of the messages. Integers are big-endian. Blocks stay readable for ever: another layout gets another mark.
Rows that were read from a table have the kind `f`, which the server does not send, and are laid out like an Insert;
keys that no row had have the kind `g`, and are laid out like a Delete.
In `W1`, the layout before, nothing was said of transactions, and a logical message had an ordinal but was no change.

Compiled where a C compiler is at hand (`chunks.pxd` beside this file).
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from backend_watcher.decode.messages import BACKFILL, CONTEXT, CONTEXT_BYTES_MAX, OWN, message_row
from backend_watcher.decode.pgoutput import KEY, NEW, OLD, Message, Truncate, decode
from backend_watcher.decode.reader import too_short, tuple_end, uint32_at, uint64_at
from backend_watcher.errors import JournalBroken, ProtocolError
from backend_watcher.events.change import DELETE, INSERT, READ, TRUNCATE, UPDATE, Change
from backend_watcher.events.table import Table
from backend_watcher.events.transaction import Stream, Transaction

MARK = b"W2"
FIRST_MARK = b"W1"
XLOG_HEADER = 25
SKIPPED = 0x80000000
IGNORED = 0x40000000
# No message reaches a gigabyte: PostgreSQL allocates no more for one.
SIZE_MASK = 0x3FFFFFFF


_OWN = OWN.encode()


class OpenTransaction(NamedTuple):
    """The transaction that is open where a chunk begins, the ordinal of its next change, what was said of it."""

    commit_lsn: int
    micros: int
    xid: int
    ordinal: int
    context: bytes = b""


class RelationMark(NamedTuple):
    """From message `number` on, relation `oid` has the shape of table version `version`."""

    number: int
    oid: int
    version: int


def pack(
    start: OpenTransaction | None, marks: Sequence[RelationMark], sizes: array[int], parts: Sequence[bytes]
) -> bytes:
    """Write a payload from messages and their sizes (with the highest bit set on a change to leave out)."""
    known = start or OpenTransaction(0, 0, 0, 0)
    directory = [struct.pack(">?QqIII", start is not None, *known[:4], len(known.context)), known.context]
    directory.append(struct.pack(">I", len(marks)))
    directory += [struct.pack(">IIQ", *mark) for mark in marks]
    directory.append(struct.pack(">I", len(sizes)))
    if sys.byteorder == "little":
        sizes = array("I", sizes)
        sizes.byteswap()
    directory.append(sizes.tobytes())
    head = b"".join(directory)
    return b"".join([MARK, struct.pack(">I", len(head)), head, *parts])


class _Walk:
    """Where `expand` stands in a payload."""

    __slots__ = (
        "at",
        "marks",
        "messages",
        "next_mark",
        "ordinal",
        "relations",
        "result",
        "sizes_at",
        "stream",
        "tables",
        "transaction",
    )

    def __init__(self, stream: Stream, tables: Mapping[int, Table]) -> None:
        self.stream = stream
        self.tables = tables
        self.transaction: Transaction | None = None
        self.ordinal = 0
        self.relations: dict[int, Table] = {}
        self.marks: list[RelationMark] = []
        self.messages = True
        self.next_mark = 0
        self.sizes_at = 0
        self.at = 0
        self.result: list[Change] = []


def expand(payload: bytes, tables: Mapping[int, Table], stream: Stream) -> list[Change]:
    """
    Return the changes of a payload, in order. `tables` maps versions to tables.

    Raises JournalBroken where the payload is not one, or a table version is missing.
    """
    walk = _Walk(stream, tables)
    try:
        count = _open(walk, payload)
        _changes(walk, payload, count)
    except struct.error as error:
        raise JournalBroken(f"a block ends too early: {error}") from None
    except ProtocolError as error:
        raise JournalBroken(f"a block holds a broken message: {error}") from None
    return walk.result


def _open(walk: _Walk, payload: bytes) -> int:
    """Read the directory; return how many messages follow."""
    walk.messages = payload[:2] == MARK
    if not walk.messages and payload[:2] != FIRST_MARK:
        raise JournalBroken(f"a block begins with {payload[:2]!r} instead of {MARK!r}")
    (head,) = struct.unpack_from(">I", payload, 2)
    is_open, lsn, micros, xid, ordinal = struct.unpack_from(">?QqII", payload, 6)
    at, context = 31, b""
    if walk.messages:
        (size,) = struct.unpack_from(">I", payload, at)
        context = payload[at + 4 : at + 4 + size]
        at += 4 + size
    if is_open:
        walk.transaction = Transaction(walk.stream, lsn, micros, xid, context)
        walk.ordinal = ordinal
    (marks,) = struct.unpack_from(">I", payload, at)
    at += 4
    for _ in range(marks):
        walk.marks.append(RelationMark(*struct.unpack_from(">IIQ", payload, at)))
        at += 16
    walk.marks.sort()
    (count,) = struct.unpack_from(">I", payload, at)
    walk.sizes_at = at + 4
    walk.at = 6 + head
    if walk.sizes_at + 4 * count != walk.at or walk.at > len(payload):
        raise JournalBroken("a block's directory does not add up")
    return int(count)


def _mark(walk: _Walk, number: int) -> int:
    """Put the marks for message `number` into force; return the number of the next message that has one."""
    while walk.next_mark < len(walk.marks) and walk.marks[walk.next_mark].number <= number:
        mark = walk.marks[walk.next_mark]
        walk.next_mark += 1
        table = walk.tables.get(mark.version)
        if table is None:
            raise JournalBroken(f"a block needs table version {mark.version}, which is not in the journal")
        walk.relations[mark.oid] = table
    return walk.marks[walk.next_mark].number if walk.next_mark < len(walk.marks) else 0x7FFFFFFF


def _changes(walk: _Walk, data: bytes, count: int) -> None:  # noqa: C901 one loop over every message
    """
    Walk over all messages, and make a Change of each row.

    Everything is looked at once more, although capture checked it: a row trusts its bytes from here on.
    """
    at = walk.at
    sizes_at = walk.sizes_at
    ordinal = walk.ordinal
    transaction = walk.transaction
    oid = 0
    columns = 0
    table = None
    append = walk.result.append
    next_mark = 0
    total = len(data)
    for number in range(count):
        if number >= next_mark:
            next_mark = _mark(walk, number)
            table = None
        size = uint32_at(data, sizes_at + 4 * number)
        begin = at + XLOG_HEADER
        at += size & SIZE_MASK
        if at > total or at - begin < 1:
            raise JournalBroken("a block's messages are longer than the block")
        kind = data[begin]
        if kind == 73 or kind == 85 or kind == 68 or kind == 102 or kind == 103:  # I, U, D, f, g
            if not size & SKIPPED:
                if at - begin < 6:
                    raise too_short(begin)
                if table is None or uint32_at(data, begin + 1) != oid:
                    oid = uint32_at(data, begin + 1)
                    table = _table(walk, oid, transaction)
                    columns = len(table.columns)
                append(_change(data, begin, at, kind, table, columns, transaction, ordinal))
            ordinal += 1
        elif kind == 66:  # B
            if at - begin != 21:
                raise JournalBroken("a block holds a Begin of wrong size")
            transaction = _transaction(walk.stream, data, begin + 1)
            ordinal = 0
        elif kind == 84:  # T
            ordinal = _truncate(walk, data[begin:at], transaction, ordinal, bool(size & SKIPPED))
        elif kind == 77:  # M
            if at - begin < 2:
                raise too_short(begin)
            # Whether it is transactional is the lowest bit of its first byte.
            if data[begin + 1] & 1 and not size & IGNORED:
                if not walk.messages:
                    ordinal += 1
                elif _is_own(data, begin, at):
                    transaction = _said(data, begin, at, transaction)
                else:
                    if not size & SKIPPED:
                        walk.result.append(_message(walk, data, begin, at, transaction, ordinal))
                    ordinal += 1
    if at != total:
        raise JournalBroken(f"a block has {total - at} bytes too many")


def _table(walk: _Walk, oid: int, transaction: Transaction | None) -> Table:
    """Return the shape in force of a relation that has a change here."""
    table = walk.relations.get(oid)
    if table is None or transaction is None:
        raise JournalBroken(f"a block has a change of relation {oid} without its table or transaction")
    return table


def _change(
    data: bytes,
    begin: int,
    end: int,
    kind: int,
    table: Table,
    columns: int,
    transaction: Transaction | None,
    ordinal: int,
) -> Change:
    """Make the Change of one row message."""
    change = Change.__new__(Change)
    change.table = table
    change.transaction = transaction  # type: ignore[assignment]
    change.ordinal = ordinal
    change._data = data
    change.size_bytes = end - begin
    change.replayed = False
    # Nobody deleted anything: that there is no row was found out here.
    change.derived = kind == 103
    if kind == 103:
        kind = 68
    change._new = None
    change._old = None
    change._new_at = 0
    change._old_at = 0
    change._old_key_only = False
    mark = data[begin + 5]
    place = begin + 6
    if (kind == 85 or kind == 68) and (mark == KEY or mark == OLD):  # noqa: SIM109
        change._old_at = place
        change._old_key_only = mark == KEY
        place = tuple_end(data, place, end, columns)
        if kind == 85:
            if place >= end:
                raise too_short(place)
            mark = data[place]
            place += 1
    if kind == 68:
        change.code = DELETE
    else:
        change.code = INSERT if kind == 73 else (UPDATE if kind == 85 else READ)
        change._new_at = place
        if mark != NEW:
            raise ProtocolError("no new row where it should begin", offset=place - 1, message_type=chr(kind))
        place = tuple_end(data, place, end, columns)
    if place != end:
        raise ProtocolError(f"{end - place} bytes too many", offset=place, message_type=chr(kind))
    return change


def _transaction(stream: Stream, data: bytes, at: int) -> Transaction:
    micros = uint64_at(data, at + 8)
    if micros >= 0x8000000000000000:
        micros -= 0x10000000000000000
    return Transaction(stream, uint64_at(data, at), micros, uint32_at(data, at + 16))


def _is_own(data: bytes, begin: int, end: int) -> bool:
    # Behind the kind, the flags and the LSN.
    return data.startswith(_OWN, begin + 10, end)


def _said(data: bytes, begin: int, end: int, transaction: Transaction | None) -> Transaction | None:
    """Return the transaction with what a message of ours says of it."""
    message = _decoded(data, begin, end)
    if message.prefix in (CONTEXT, BACKFILL) and transaction is not None and len(message.content) <= CONTEXT_BYTES_MAX:
        return transaction.with_context(message.content)
    return transaction


def _message(walk: _Walk, data: bytes, begin: int, end: int, transaction: Transaction | None, ordinal: int) -> Change:
    """Make the change that a message is."""
    message = _decoded(data, begin, end)
    table = _table(walk, 0, transaction)
    assert transaction is not None
    # In front of the row stands one byte: where 0 is, there is none.
    row = b" " + message_row(message.prefix, message.content)
    return Change(INSERT, table, transaction, ordinal, row, 1, 0, False)


def _decoded(data: bytes, begin: int, end: int) -> Message:
    message = decode(data[begin:end])
    assert isinstance(message, Message)
    return message


def _truncate(walk: _Walk, message: bytes, transaction: Transaction | None, ordinal: int, skipped: bool) -> int:
    """Make one truncate of each table named; return the next ordinal."""
    decoded = decode(message)
    assert isinstance(decoded, Truncate)
    for oid in decoded.relation_oids:
        if not skipped:
            table = _table(walk, oid, transaction)
            assert transaction is not None
            walk.result.append(Change(TRUNCATE, table, transaction, ordinal, b"", 0, 0, False))
        ordinal += 1
    return ordinal
