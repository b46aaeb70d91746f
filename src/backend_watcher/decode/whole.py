"""
The two messages that a transaction in parts does not have: its Begin and its Commit, as XLogData. Pure.

Laid out as the manual says, chapter "Logical Replication Message Formats".
"""

from __future__ import annotations

import struct

_XLOG_DATA = struct.Struct(">cQQq")
_BEGIN = struct.Struct(">cQqI")
_COMMIT = struct.Struct(">cBQQq")


def begin_message(commit_lsn: int, commit_micros: int, xid: int) -> bytes:
    """Return a Begin. `commit_micros` is in microseconds since 2000-01-01 UTC."""
    return _XLOG_DATA.pack(b"w", commit_lsn, commit_lsn, 0) + _BEGIN.pack(b"B", commit_lsn, commit_micros, xid)


def commit_message(flags: int, commit_lsn: int, end_lsn: int, commit_micros: int) -> bytes:
    """Return a Commit."""
    return _XLOG_DATA.pack(b"w", commit_lsn, commit_lsn, 0) + _COMMIT.pack(
        b"C", flags, commit_lsn, end_lsn, commit_micros
    )
