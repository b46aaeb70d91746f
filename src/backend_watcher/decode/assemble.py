"""
Captured messages become chunks: checked, numbered, and bundled with what is needed to decode them later.

The assembler looks at every message once and copies none: a chunk is the very bytes the server sent behind
a small directory (`chunks.py`). It gives each change its ordinal in the transaction, leaves out what the
journal already has, and stops at a Relation it does not know yet, so that the caller can look up the key.

Every transaction comes whole, after its commit: what was sent in parts (`streams.py`) is fed when it is complete.
Compiled where a C compiler is at hand.
"""

from __future__ import annotations

from array import array

from backend_watcher.decode.chunks import OpenTransaction, RelationMark, pack
from backend_watcher.decode.messages import BACKFILL, CONTEXT, CONTEXT_BYTES_MAX, DDL, MARK, MESSAGES, OWN
from backend_watcher.decode.pgoutput import (
    KEY,
    NEW,
    OLD,
    Message,
    PgoutputMessage,
    Prepared,
    Relation,
    StreamAbort,
    StreamCommit,
    StreamStart,
    StreamStop,
    Truncate,
    decode,
)
from backend_watcher.decode.reader import too_short, tuple_end, uint32_at, uint64_at
from backend_watcher.errors import ProtocolError
from backend_watcher.events.chunk import Chunk
from backend_watcher.events.position import Position
from backend_watcher.events.table import Table

XLOG_HEADER = 25
"""Bytes before the message in a CopyData: `w`, WAL start, WAL end, clock."""

SKIPPED = 0x80000000
"""Set in a message's size where the journal already has its change."""

IGNORED = 0x40000000
"""Set in a message's size where it is no change, and has no ordinal."""


class Assembler:
    """
    Turns runs of XLogData into chunks.

    `last` is the newest position the journal already has, `start_lsn` where the stream begins. `owed` says
    that since the last `take` a transaction with new changes, in this chunk or an earlier one, has ended.

    With `messages`, logical messages are changes too. Of a transaction in progress the server does not say which
    savepoint a message belongs to: it must not be sent in parts then, or what was undone would count.
    """

    def __init__(self, last: Position, start_lsn: int = 0, messages: bool = True) -> None:
        self._messages = messages
        # The newest change seen or already stored; what is not after it is left out.
        self._last_lsn = last.commit_lsn
        self._last_ordinal = last.ordinal
        self._tables: dict[int, Table] = {0: MESSAGES}
        self._columns: dict[int, int] = {}
        self._cached_oid = -1
        self._cached_columns = -1
        self.wants: Relation | None = None
        self.streamed: StreamStart | StreamCommit | StreamAbort | None = None
        self.described: set[int] = set()
        # Set where the source says that something was done to a table; the caller takes it back.
        self.ddl = False
        # Set where somebody waits for the journal to come here; the caller takes it back.
        self.marked = False
        # Set at a message that says that rows belong here; the caller takes it back.
        self.watermark: bytes | None = None
        # Whether rows that were read from tables are being fed. The server sends none.
        self.reading = False
        # The transaction the next message belongs to.
        self.in_transaction = False
        self._commit_lsn = 0
        self._micros = 0
        self._xid = 0
        self._context = b""
        self._ordinal = 0
        self._transaction_changes = False
        self.commit_end_lsn = start_lsn
        self._restart()

    def _restart(self) -> None:
        """Begin the next chunk."""
        self._parts: list[bytes] = []
        self._sizes = array("I")
        self._marks: list[RelationMark] = []
        self._versions: dict[int, Table] = {}
        self._start: OpenTransaction | None = None
        if self.in_transaction:
            self._start = OpenTransaction(self._commit_lsn, self._micros, self._xid, self._ordinal, self._context)
        self._used: set[int] = set()
        self.changes = 0
        self.size_bytes = 0
        self.owed = False
        self._chunk_end_lsn = 0
        self._first_lsn = 0
        self._first_ordinal = 0

    def feed(self, data: bytes, sizes: list[int], start: int = 0) -> int:
        """
        Take the XLogData messages that lie end to end in `data`, from message number `start` on.

        Returns how many are taken. Fewer than all means that `wants` holds a Relation to be answered with
        `define`; then feed again with what was returned as `start`. Or it means that `streamed` holds a message
        about a transaction in progress, which is the caller's to deal with; then go on after it, and after what
        belongs to it. Or it means that `watermark` is set: rows may be fed here. Raises ProtocolError, with the
        offset in the message; the stream ends there, and nothing can be taken after it.
        """
        self.streamed = None
        at = 0
        number = 0
        count = len(sizes)
        while number < start and number < count:
            at += sizes[number]
            number += 1
        begun = at
        try:
            while number < count:
                size = sizes[number]
                end = at + size
                if size <= XLOG_HEADER or size > len(data) - at:
                    raise ProtocolError(f"a CopyData of {size} bytes", message_type="w")
                kind = data[at + XLOG_HEADER]
                if (
                    kind == 73 or kind == 85 or kind == 68 or ((kind == 102 or kind == 103) and self.reading)
                ):  # I, U, D, f, g
                    self._sizes.append(self._row(68 if kind == 103 else kind, data, at + XLOG_HEADER, end, size))
                elif kind == 66:  # B
                    self._begin(data, at + XLOG_HEADER + 1, end)
                    self._sizes.append(size)
                elif kind == 67:  # C
                    self._commit(data, at + XLOG_HEADER + 1, end)
                    self._sizes.append(size)
                elif self._other(data, at + XLOG_HEADER, end, size):
                    # A watermark is taken; what wants an answer, or is about parts, is not.
                    number, at = (number + 1, end) if self.watermark is not None else (number, at)
                    break
                number += 1
                at = end
        except ProtocolError as error:
            raise _in_message(error, data, at + XLOG_HEADER) from None
        if at > begun:
            self._parts.append(data if at - begun == len(data) else data[begun:at])
            self.size_bytes += at - begun
        return number

    def _row(self, kind: int, data: bytes, at: int, end: int, size: int) -> int:
        """Check a row message and number its change; return its size, marked if the journal has it."""
        if at + 6 > end:
            raise too_short(at)
        oid = uint32_at(data, at + 1)
        if oid != self._cached_oid:
            self._remember(oid, at)
        mark = data[at + 5]
        place = at + 6
        if (kind == 85 or kind == 68) and (mark == KEY or mark == OLD):  # noqa: SIM109
            place = tuple_end(data, place, end, self._cached_columns)
            if kind == 85:
                if place >= end:
                    raise too_short(place)
                mark = data[place]
                place += 1
        elif kind == 68:
            raise ProtocolError("a Delete without an old row", offset=at + 5)
        if kind != 68:
            if mark != NEW:
                raise ProtocolError("no new row where it should begin", offset=place - 1)
            place = tuple_end(data, place, end, self._cached_columns)
        if place != end:
            raise ProtocolError(f"{end - place} bytes too many", offset=place)
        return size if self._number(1, at) else size | SKIPPED

    def _remember(self, oid: int, at: int) -> None:
        columns = self._columns.get(oid, -1)
        if columns < 0:
            raise ProtocolError(f"a row of relation {oid}, which was not described", offset=at + 1)
        self._cached_oid = oid
        self._cached_columns = columns
        self._use(oid, 0)

    def _use(self, oid: int, number: int) -> None:
        """Note in the directory which version of a relation this chunk's rows have, from `number` on."""
        if oid in self._used and not number:
            return
        table = self._tables[oid]
        self._used.add(oid)
        self._versions[table.version] = table
        self._marks.append(RelationMark(number, oid, table.version))

    def _number(self, changes: int, at: int) -> bool:
        """Give the next `changes` changes their ordinals; say whether the last is new to the journal."""
        if not self.in_transaction:
            raise ProtocolError("a change outside a transaction", offset=at)
        first = self._ordinal
        self._ordinal += changes
        last = self._ordinal - 1
        if self._commit_lsn < self._last_lsn:
            return False
        if self._commit_lsn == self._last_lsn and last <= self._last_ordinal:
            return False
        if not self.changes:
            self._first_lsn = self._commit_lsn
            self._first_ordinal = first
        self.changes += changes
        self._transaction_changes = True
        self._last_lsn = self._commit_lsn
        self._last_ordinal = last
        return True

    def _begin(self, data: bytes, at: int, end: int) -> None:
        if end - at != 20 or self.in_transaction:
            raise ProtocolError("a Begin of wrong size, or inside a transaction", offset=at)
        self._commit_lsn = uint64_at(data, at)
        micros = uint64_at(data, at + 8)
        self._micros = micros if micros < 0x8000000000000000 else micros - 0x10000000000000000
        self._xid = uint32_at(data, at + 16)
        self._context = b""
        self._ordinal = 0
        self._transaction_changes = False
        self.in_transaction = True

    def _commit(self, data: bytes, at: int, end: int) -> None:
        if end - at != 25 or not self.in_transaction:
            raise ProtocolError("a Commit of wrong size, or outside a transaction", offset=at)
        if uint64_at(data, at + 1) != self._commit_lsn:
            raise ProtocolError("a Commit of another transaction than its Begin", offset=at + 1)
        self.commit_end_lsn = uint64_at(data, at + 9)
        self._chunk_end_lsn = self.commit_end_lsn
        self.owed = self.owed or self._transaction_changes
        self.in_transaction = False

    def _other(self, data: bytes, at: int, end: int, size: int) -> bool:
        """Take a rare message; return True where the caller has to do something first."""
        message = _decode(data, at, end)
        fresh = True
        if isinstance(message, Relation):
            self.described.add(message.relation_oid)
            if not self._known(message):
                self.wants = message
                return True
            self._cached_oid = -1
        elif isinstance(message, Truncate):
            for oid in message.relation_oids:
                if oid not in self._columns:
                    raise ProtocolError(f"a Truncate of relation {oid}, which was not described", offset=at)
                self._use(oid, 0)
            fresh = self._number(len(message.relation_oids), at)
        elif isinstance(message, Message) and message.transactional:
            return self._said(message, at, size)
        elif self._of_parts(message, at):
            return True
        self._sizes.append(size if fresh else size | SKIPPED)
        return False

    def _said(self, message: Message, at: int, size: int) -> bool:
        """Take a transactional message: one for users is numbered like a row, where anybody is to have it."""
        if not message.prefix.startswith(OWN):
            if self._messages:
                self._use(0, 0)
                size = size if self._number(1, at) else size | SKIPPED
            else:
                size |= IGNORED
        elif message.prefix == CONTEXT and len(message.content) <= CONTEXT_BYTES_MAX:
            self._context = message.content
        elif message.prefix == DDL:
            self.ddl = True
        elif message.prefix == MARK:
            self.marked = True
        elif message.prefix == BACKFILL and len(message.content) <= CONTEXT_BYTES_MAX:
            # Said of the rows that may follow it, as an application says things of its own.
            self._context = self.watermark = message.content
        self._sizes.append(size)
        return self.watermark is not None

    def _of_parts(self, message: PgoutputMessage, at: int) -> bool:
        """Say whether a message is about a transaction in progress, and not about the one that came whole."""
        if isinstance(message, StreamStop | Prepared):
            # To step over one would be to lose its rows.
            raise ProtocolError("a message that was not asked for, or is out of place", offset=at)
        if isinstance(message, StreamStart | StreamCommit) and self.in_transaction:
            raise ProtocolError("a part of a transaction inside another one", offset=at)
        # An abort inside a transaction that came whole was seen in the wild; it means nothing there.
        if isinstance(message, StreamStart | StreamCommit | StreamAbort) and not self.in_transaction:
            self.streamed = message
            return True
        return False

    def _known(self, relation: Relation) -> bool:
        table = self._tables.get(relation.relation_oid)
        return table is not None and _same_shape(table, relation)

    def open_commit_lsn(self) -> int | None:
        """Return where the transaction that has begun commits; None between two."""
        return self._commit_lsn if self.in_transaction else None

    def define(self, table: Table) -> None:
        """Answer `wants` with the table, its primary key looked up. Raises ValueError if it is another one."""
        if self.wants is None or not _same_shape(table, self.wants):
            raise ValueError(f"{table.full_name} was not asked for")
        self.wants = None
        self.redefine(table)

    def table(self, oid: int) -> Table | None:
        """Return the shape that rows of a relation have now."""
        return self._tables.get(oid)

    def redefine(self, table: Table) -> None:
        """Let rows that follow have this shape, which the server described before."""
        self._tables[table.relation_oid] = table
        self._columns[table.relation_oid] = len(table.columns)
        self._cached_oid = -1
        if table.relation_oid in self._used:
            self._use(table.relation_oid, len(self._sizes))

    def take(self) -> Chunk | None:
        """Return what was fed since the last call as a chunk, or None where it holds no new change."""
        chunk = None
        if self.changes:
            chunk = Chunk(
                payload=pack(self._start, self._marks, self._sizes, self._parts),
                first=Position(self._first_lsn, self._first_ordinal),
                last=Position(self._last_lsn, self._last_ordinal),
                commit_end_lsn=self._chunk_end_lsn,
                changes=self.changes,
                tables=tuple(self._versions.values()),
            )
        self._cached_oid = -1
        self._restart()
        return chunk


def _decode(data: bytes, at: int, end: int) -> PgoutputMessage:
    """Decode a message of a run, with offsets in the run where it cannot be."""
    try:
        return decode(data[at:end])
    except ProtocolError as error:
        raise ProtocolError(error.what, offset=at + error.offset) from None


def _in_message(error: ProtocolError, data: bytes, begin: int) -> ProtocolError:
    """Say of an error whose offset is in the run which message it is in, and where."""
    if error.message_type == "w":
        return error
    return ProtocolError(error.what, offset=error.offset - begin, message_type=chr(data[begin]))


def _same_shape(table: Table, relation: Relation) -> bool:
    described = [(c.name, c.type_oid, c.modifier, c.identity) for c in relation.columns]
    return (
        (table.relation_oid, table.schema, table.name, table.replica_identity)
        == (relation.relation_oid, relation.schema, relation.name, relation.replica_identity)
    ) and described == [(c.name, c.type_oid, c.modifier, c.identity) for c in table.columns]
