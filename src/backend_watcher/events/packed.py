"""
A single change as bytes: to be set aside from its block, or handed to another process.

    P1, code, flags (1: the old row holds the key only, 2: replayed, 4: derived), commit LSN, commit time in
    microseconds, xid, ordinal, size of the new TupleData, new TupleData, old TupleData

and, where something was said of the transaction, `P2` instead, and at the end what was said, and its size.

Integers are big-endian. The table travels apart, by its version. What is kept in this form stays readable: another
layout will get another mark.
"""

from __future__ import annotations

import struct

from backend_watcher.errors import JournalBroken
from backend_watcher.events.change import Change
from backend_watcher.events.table import Table
from backend_watcher.events.transaction import Stream, Transaction

MARK = b"P1"
WITH_CONTEXT = b"P2"
KEY_ONLY = 1
REPLAYED = 2
DERIVED = 4

_HEAD = struct.Struct(">2sBBQqIII")
_SIZE = struct.Struct(">I")


def pack(change: Change) -> bytes:
    """Write a change as the source sent it; what a transform made of its values is not in it."""
    new, old, key_only = change.tuples()
    flags = (KEY_ONLY if key_only else 0) | (REPLAYED if change.replayed else 0)
    flags |= DERIVED if change.derived else 0
    at = change.transaction
    said = at.context_bytes
    mark = WITH_CONTEXT if said else MARK
    head = _HEAD.pack(mark, change.code, flags, at.commit_lsn, at.commit_micros, at.xid, change.ordinal, len(new))
    return b"".join([head, new, old, said, _SIZE.pack(len(said))]) if said else head + new + old


def unpack(data: bytes, table: Table, stream: Stream) -> Change:
    """Read what `pack` wrote. `table` is the one the change had. Raises JournalBroken where it is not that."""
    try:
        mark, code, flags, lsn, micros, xid, ordinal, new_bytes = _HEAD.unpack_from(data)
    except struct.error as error:
        raise JournalBroken(f"a kept change ends too early: {error}") from None
    said = b""
    if mark == WITH_CONTEXT:
        data, said = _split(data)
    elif mark != MARK:
        raise JournalBroken(f"a kept change begins with {mark!r} instead of {MARK!r}")
    new_at = _HEAD.size if new_bytes else 0
    old_at = _HEAD.size + new_bytes if len(data) > _HEAD.size + new_bytes else 0
    for at in filter(None, (new_at, old_at)):
        if int.from_bytes(data[at : at + 2]) != len(table.columns):
            raise JournalBroken(f"a kept change of {table.full_name} does not have the shape it was kept with")
    transaction = Transaction(stream, lsn, micros, xid, said)
    change = Change(code, table, transaction, ordinal, data, new_at, old_at, bool(flags & KEY_ONLY))
    if flags & DERIVED:
        change = change.as_derived()
    return change.as_replayed() if flags & REPLAYED else change


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Take off what was said of the transaction."""
    (size,) = _SIZE.unpack_from(data, len(data) - _SIZE.size)
    end = len(data) - _SIZE.size - size
    if end < _HEAD.size:
        raise JournalBroken("a kept change ends too early")
    return data[:end], data[end : end + size]
