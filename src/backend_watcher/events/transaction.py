"""The transaction a change was committed in, and the stream it came by."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

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

    __slots__ = ("commit_lsn", "commit_micros", "stream", "xid")

    def __init__(self, stream: Stream, commit_lsn: int, commit_micros: int, xid: int) -> None:
        self.stream = stream
        self.commit_lsn = commit_lsn
        self.commit_micros = commit_micros
        self.xid = xid

    @property
    def commit_time(self) -> datetime:
        """When the source says it committed, in UTC."""
        return POSTGRES_EPOCH + timedelta(microseconds=self.commit_micros)

    def __repr__(self) -> str:
        return f"Transaction(xid={self.xid}, commit_lsn={self.commit_lsn:#x})"
