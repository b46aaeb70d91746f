"""
One pgoutput message from bytes to a value: protocol versions 1 to 4.

Follows the manual, chapter "Logical Replication Message Formats". Inside a stream of a transaction in
progress (between Stream Start and Stream Stop) R, Y, I, U, D, T and M carry the transaction's id first.
Malformed bytes raise ProtocolError, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from backend_watcher.decode.reader import Reader
from backend_watcher.errors import ProtocolError

KEY = 75  # K: the old row's replica identity
OLD = 79  # O: the whole old row
NEW = 78  # N


@dataclass(frozen=True, slots=True)
class Begin:
    """A transaction begins; `commit_lsn` is known because it was sent after the commit."""

    commit_lsn: int
    commit_micros: int
    xid: int


@dataclass(frozen=True, slots=True)
class Commit:
    """The transaction is complete; the server may forget everything before `end_lsn` once it is stored."""

    flags: int
    commit_lsn: int
    end_lsn: int
    commit_micros: int


@dataclass(frozen=True, slots=True)
class Origin:
    """The transaction was replicated from elsewhere."""

    commit_lsn: int
    name: str


@dataclass(frozen=True, slots=True)
class RelationColumn:
    """A column as Relation describes it; `identity` says it belongs to the replica identity."""

    name: str
    type_oid: int
    modifier: int
    identity: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """The shape of a table, sent before its first row and after each change of it."""

    xid: int | None
    relation_oid: int
    schema: str
    name: str
    replica_identity: str
    columns: tuple[RelationColumn, ...]


@dataclass(frozen=True, slots=True)
class Type:
    """The name of a type that is not built in."""

    xid: int | None
    type_oid: int
    schema: str
    name: str


@dataclass(frozen=True, slots=True)
class RowMessage:
    """Insert, Update or Delete. Rows are offsets of their TupleData in the message, 0 where there is none."""

    kind: str
    xid: int | None
    relation_oid: int
    new_at: int
    old_at: int
    old_key_only: bool


@dataclass(frozen=True, slots=True)
class Truncate:
    """Tables were emptied; only published ones are named."""

    xid: int | None
    relation_oids: tuple[int, ...]
    cascade: bool
    restart_identity: bool


@dataclass(frozen=True, slots=True)
class Message:
    """What `pg_logical_emit_message` wrote."""

    xid: int | None
    transactional: bool
    lsn: int
    prefix: str
    content: bytes


@dataclass(frozen=True, slots=True)
class StreamStart:
    """A part of a transaction in progress follows."""

    xid: int
    first: bool


@dataclass(frozen=True, slots=True)
class StreamStop:
    """The part ends."""


@dataclass(frozen=True, slots=True)
class StreamCommit:
    """A transaction that was sent in parts is complete."""

    xid: int
    flags: int
    commit_lsn: int
    end_lsn: int
    commit_micros: int


@dataclass(frozen=True, slots=True)
class StreamAbort:
    """A transaction (`subxid` equals `xid`) or a part of it is undone; LSN and time from version 4 on."""

    xid: int
    subxid: int
    abort_lsn: int | None
    abort_micros: int | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """Begin Prepare, Prepare, Commit Prepared, Rollback Prepared or Stream Prepare: `kind` says which."""

    kind: str
    flags: int
    lsn: int
    end_lsn: int
    micros: int
    rollback_micros: int | None
    xid: int
    gid: str


PgoutputMessage: TypeAlias = (
    Begin
    | Commit
    | Origin
    | Relation
    | Type
    | RowMessage
    | Truncate
    | Message
    | StreamStart
    | StreamStop
    | StreamCommit
    | StreamAbort
    | Prepared
)


def decode(data: bytes, *, in_stream: bool = False) -> PgoutputMessage:
    """Decode one message. `in_stream` says that a Stream Start came and its Stream Stop did not."""
    if not data:
        raise ProtocolError("an empty message", message_type="")
    kind = chr(data[0])
    parse = _PARSERS.get(kind)
    if parse is None:
        raise ProtocolError("a message of an unknown type", message_type=kind)
    reader = Reader(data, 1)
    try:
        xid = reader.uint32() if in_stream and kind in _WITH_XID else None
        message = parse(reader, kind, xid)
        reader.finish()
    except ProtocolError as error:
        raise ProtocolError(error.what, offset=error.offset, message_type=kind) from None
    return message


def _begin(reader: Reader, kind: str, xid: int | None) -> Begin:
    return Begin(reader.uint64(), reader.int64(), reader.uint32())


def _commit(reader: Reader, kind: str, xid: int | None) -> Commit:
    return Commit(reader.uint8(), reader.uint64(), reader.uint64(), reader.int64())


def _origin(reader: Reader, kind: str, xid: int | None) -> Origin:
    return Origin(reader.uint64(), reader.string())


def _relation(reader: Reader, kind: str, xid: int | None) -> Relation:
    oid, schema, name = reader.uint32(), reader.string(), reader.string()
    identity = chr(reader.uint8())
    if identity not in "dnfi":
        raise ProtocolError(f"an unknown replica identity {identity!r}", offset=reader.at - 1)
    count = reader.uint16()
    columns = []
    for _ in range(count):
        flags, column = reader.uint8(), reader.string()
        columns.append(RelationColumn(column, reader.uint32(), reader.int32(), bool(flags & 1)))
    if len({column.name for column in columns}) != count:
        raise ProtocolError("a relation with two columns of one name", offset=reader.at)
    # An empty schema name stands for pg_catalog.
    return Relation(xid, oid, schema or "pg_catalog", name, identity, tuple(columns))


def _type(reader: Reader, kind: str, xid: int | None) -> Type:
    return Type(xid, reader.uint32(), reader.string() or "pg_catalog", reader.string())


def _row(reader: Reader, kind: str, xid: int | None) -> RowMessage:
    oid = reader.uint32()
    mark = reader.uint8()
    old_at = new_at = 0
    key_only = mark == KEY
    if kind != "I" and mark in (KEY, OLD):
        old_at = reader.row()
        mark = reader.uint8() if kind == "U" else 0
    if kind == "D" and not old_at:
        raise ProtocolError(f"a Delete with {chr(mark)!r} instead of an old row", offset=reader.at - 1)
    if kind != "D":
        if mark != NEW:
            raise ProtocolError(f"{chr(mark)!r} where the new row should begin", offset=reader.at - 1)
        new_at = reader.row()
    return RowMessage(kind, xid, oid, new_at, old_at, key_only)


def _truncate(reader: Reader, kind: str, xid: int | None) -> Truncate:
    count, options = reader.uint32(), reader.uint8()
    reader.need(4 * count)
    oids = tuple(reader.uint32() for _ in range(count))
    return Truncate(xid, oids, bool(options & 1), bool(options & 2))


def _message(reader: Reader, kind: str, xid: int | None) -> Message:
    flags, lsn, prefix = reader.uint8(), reader.uint64(), reader.string()
    return Message(xid, bool(flags & 1), lsn, prefix, reader.take(reader.uint32()))


def _stream_start(reader: Reader, kind: str, xid: int | None) -> StreamStart:
    return StreamStart(reader.uint32(), bool(reader.uint8()))


def _stream_stop(reader: Reader, kind: str, xid: int | None) -> StreamStop:
    return StreamStop()


def _stream_commit(reader: Reader, kind: str, xid: int | None) -> StreamCommit:
    return StreamCommit(reader.uint32(), reader.uint8(), reader.uint64(), reader.uint64(), reader.int64())


def _stream_abort(reader: Reader, kind: str, xid: int | None) -> StreamAbort:
    top, sub = reader.uint32(), reader.uint32()
    if reader.at == reader.end:
        return StreamAbort(top, sub, None, None)
    return StreamAbort(top, sub, reader.uint64(), reader.int64())


def _prepared(reader: Reader, kind: str, xid: int | None) -> Prepared:
    flags = 0 if kind == "b" else reader.uint8()
    lsn, end_lsn, micros = reader.uint64(), reader.uint64(), reader.int64()
    rollback = reader.int64() if kind == "r" else None
    return Prepared(kind, flags, lsn, end_lsn, micros, rollback, reader.uint32(), reader.string())


_WITH_XID = frozenset("RYIUDTM")

_PARSERS: dict[str, Callable[[Reader, str, int | None], PgoutputMessage]] = {
    "B": _begin,
    "C": _commit,
    "O": _origin,
    "R": _relation,
    "Y": _type,
    "I": _row,
    "U": _row,
    "D": _row,
    "T": _truncate,
    "M": _message,
    "S": _stream_start,
    "E": _stream_stop,
    "c": _stream_commit,
    "A": _stream_abort,
    "b": _prepared,
    "P": _prepared,
    "K": _prepared,
    "r": _prepared,
    "p": _prepared,
}
