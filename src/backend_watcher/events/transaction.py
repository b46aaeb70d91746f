"""The transaction a change was committed in, and the stream it came by."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import msgspec

NO_CONTEXT: Mapping[str, Any] = MappingProxyType({})

POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class Stream:
    """The one source of positions: a cluster and a slot of it. Positions of two streams cannot be compared."""

    __slots__ = ("slot", "system_identifier")

    def __init__(self, system_identifier: str, slot: str) -> None:
        self.system_identifier = system_identifier
        self.slot = slot


class Transaction:
    """
    What all changes of one transaction share.

    `commit_lsn` is the LSN of the commit record, `commit_micros` the source's wall clock at the commit, in
    microseconds since 2000-01-01 00:00 UTC (manual, chapter "Logical Replication Message Formats"), and
    `xid` the 32-bit transaction id. The clock may jump; order by position only.
    """

    __slots__ = ("_context", "commit_lsn", "commit_micros", "context_bytes", "stream", "xid")

    def __init__(
        self, stream: Stream, commit_lsn: int, commit_micros: int, xid: int, context_bytes: bytes = b""
    ) -> None:
        self.stream = stream
        self.commit_lsn = commit_lsn
        self.commit_micros = commit_micros
        self.xid = xid
        self.context_bytes = context_bytes
        self._context: Mapping[str, Any] | None = None

    @property
    def context(self) -> Mapping[str, Any]:
        """
        What the application said of the transaction before this change: a request's id, its user, its trace.

        Empty where it said nothing, or nothing that is a JSON object.
        """
        if self._context is None:
            self._context = _read_context(self.context_bytes)
        return self._context

    def with_context(self, context_bytes: bytes) -> Transaction:
        """Return the same transaction, of which something is said from here on."""
        return Transaction(self.stream, self.commit_lsn, self.commit_micros, self.xid, context_bytes)

    @property
    def commit_time(self) -> datetime:
        """When the source says it committed, in UTC."""
        return POSTGRES_EPOCH + timedelta(microseconds=self.commit_micros)

    def __repr__(self) -> str:
        return f"Transaction(xid={self.xid}, commit_lsn={self.commit_lsn:#x})"


def _read_context(data: bytes) -> Mapping[str, Any]:
    if not data:
        return NO_CONTEXT
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return NO_CONTEXT
    return MappingProxyType(found) if isinstance(found, dict) else NO_CONTEXT
