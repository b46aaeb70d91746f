"""Logical messages: which are for users, and the row that one becomes. Pure."""

from __future__ import annotations

import struct

from backend_watcher.context import BYTES_MAX as CONTEXT_BYTES_MAX
from backend_watcher.context import PREFIX as CONTEXT
from backend_watcher.decode.tables import make_table
from backend_watcher.events.message import BACKFILL, DDL, MARK, NAME, OWN, SCHEMA

__all__ = ["BACKFILL", "CONTEXT", "CONTEXT_BYTES_MAX", "DDL", "MARK", "MESSAGES", "OWN", "message_row"]

_TEXT = 25
_BYTEA = 17

# Its number is the one that no table has (InvalidOid).
MESSAGES = make_table(0, SCHEMA, NAME, "d", [("prefix", _TEXT, -1, True), ("content", _BYTEA, -1, False)], ["prefix"])


def message_row(prefix: str, content: bytes) -> bytes:
    """Return the TupleData of a message's row."""
    name = prefix.encode("utf-8", "surrogateescape")
    return struct.pack(">HcI", 2, b"t", len(name)) + name + struct.pack(">cI", b"b", len(content)) + content
