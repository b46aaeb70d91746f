"""
Messages as a server writes them, laid out by hand from the manual: "Logical Replication Message Formats".

Nothing here uses the code under test. `within` is the transaction id that precedes the fields in a stream.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

NULL, UNCHANGED = None, ...


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def prefixed(kind: bytes, within: int | None) -> bytes:
    return kind if within is None else kind + struct.pack(">I", within)


def xlog_data(message: bytes, lsn: int = 0x1000) -> bytes:
    """The CopyData a walsender wraps around a message."""
    return b"w" + struct.pack(">QQq", lsn, lsn, 0) + message


def cells(values: Sequence[Any], kind: bytes = b"t") -> bytes:
    """TupleData: bytes or str are values, None is NULL (or not sent), Ellipsis is unchanged."""
    parts = [struct.pack(">H", len(values))]
    for value in values:
        if value is NULL:
            parts.append(b"n")
        elif value is UNCHANGED:
            parts.append(b"u")
        else:
            data = value.encode() if isinstance(value, str) else value
            parts.append(kind + struct.pack(">I", len(data)) + data)
    return b"".join(parts)


def begin(lsn: int, micros: int = 0, xid: int = 700) -> bytes:
    return b"B" + struct.pack(">QqI", lsn, micros, xid)


def commit(lsn: int, end_lsn: int, micros: int = 0, flags: int = 0) -> bytes:
    return b"C" + struct.pack(">BQQq", flags, lsn, end_lsn, micros)


def origin(lsn: int, name: str) -> bytes:
    return b"O" + struct.pack(">Q", lsn) + text(name)


def relation(
    oid: int,
    schema: str,
    name: str,
    columns: Iterable[tuple[str, int, int, bool]],
    identity: str = "d",
    within: int | None = None,
) -> bytes:
    described = [struct.pack(">B", key) + text(c) + struct.pack(">Ii", kind, mod) for c, kind, mod, key in columns]
    head = prefixed(b"R", within) + struct.pack(">I", oid) + text(schema) + text(name)
    return head + identity.encode() + struct.pack(">H", len(described)) + b"".join(described)


def type_name(oid: int, schema: str, name: str, within: int | None = None) -> bytes:
    return prefixed(b"Y", within) + struct.pack(">I", oid) + text(schema) + text(name)


def insert(oid: int, new: bytes, within: int | None = None) -> bytes:
    return prefixed(b"I", within) + struct.pack(">I", oid) + b"N" + new


def update(oid: int, new: bytes, *, key: bytes = b"", old: bytes = b"", within: int | None = None) -> bytes:
    before = b"K" + key if key else b"O" + old if old else b""
    return prefixed(b"U", within) + struct.pack(">I", oid) + before + b"N" + new


def delete(oid: int, *, key: bytes = b"", old: bytes = b"", within: int | None = None) -> bytes:
    return prefixed(b"D", within) + struct.pack(">I", oid) + (b"K" + key if key else b"O" + old)


def truncate(oids: Sequence[int], options: int = 0, within: int | None = None) -> bytes:
    return prefixed(b"T", within) + struct.pack(f">IB{len(oids)}I", len(oids), options, *oids)


def message(prefix: str, content: bytes, *, transactional: bool, lsn: int = 0, within: int | None = None) -> bytes:
    head = prefixed(b"M", within) + struct.pack(">BQ", transactional, lsn)
    return head + text(prefix) + struct.pack(">I", len(content)) + content


def stream_start(xid: int, first: bool) -> bytes:
    return b"S" + struct.pack(">IB", xid, first)


def stream_stop() -> bytes:
    return b"E"


def stream_commit(xid: int, lsn: int, end_lsn: int, micros: int) -> bytes:
    return b"c" + struct.pack(">IBQQq", xid, 0, lsn, end_lsn, micros)


def stream_abort(xid: int, subxid: int, lsn: int | None = None, micros: int = 0) -> bytes:
    """Up to version 3 the two transaction ids; from version 4 on, in parallel streaming, LSN and time too."""
    head = b"A" + struct.pack(">II", xid, subxid)
    return head if lsn is None else head + struct.pack(">Qq", lsn, micros)


def begin_prepare(lsn: int, end_lsn: int, micros: int, xid: int, gid: str) -> bytes:
    return b"b" + struct.pack(">QQqI", lsn, end_lsn, micros, xid) + text(gid)


def prepared(kind: str, lsn: int, end_lsn: int, micros: int, xid: int, gid: str) -> bytes:
    """Prepare (P), Commit Prepared (K) and Stream Prepare (p) are laid out alike."""
    return kind.encode() + struct.pack(">BQQqI", 0, lsn, end_lsn, micros, xid) + text(gid)


def rollback_prepared(lsn: int, end_lsn: int, micros: int, rollback_micros: int, xid: int, gid: str) -> bytes:
    return b"r" + struct.pack(">BQQqqI", 0, lsn, end_lsn, micros, rollback_micros, xid) + text(gid)


def run(messages: Sequence[bytes]) -> tuple[bytes, list[int]]:
    """What `feed` takes: XLogData end to end, and their sizes."""
    framed = [xlog_data(message) for message in messages]
    return b"".join(framed), [len(frame) for frame in framed]
