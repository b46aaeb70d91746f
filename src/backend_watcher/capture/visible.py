"""
Which transactions of the outbox come next, and in which order: the one place that decides it. Pure.

A row's number is given before its transaction commits, so a reader that asks for numbers above the last one skips
whoever commits late. Here the question is what a snapshot sees. The reader takes snapshots one after the other, writes
each down on the source *before* it reads, and a *batch* is what a snapshot sees and the one before it did not. A
transaction is in exactly one batch, whole; asked again after a crash, the batch is the same, because whether a snapshot
sees a transaction never changes.

In a batch, transactions go by the number of their last row. If one transaction could see what another had committed, or
waited for a row the other had locked, then its last row was written after the other's commit, and so has the greater
number: whoever could know of whom comes after them. The order of each key's changes follows from that. (By their first
row, or by transaction id, that would be wrong: both are given long before the commit.) Between two batches it holds
as well: what a transaction could see when it wrote, each snapshot that sees the transaction sees too.

One thing is not seen in numbers: a unique constraint that is DEFERRED lets a second transaction write a key which the
first one has deleted and not committed yet.

A position is made of the batch and the place in it: the batch begins at an LSN of the source that was taken with its
snapshot, or where the batch before it ended, whichever is later; each transaction takes one more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from backend_watcher.errors import OutOfOrder, ProtocolError


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Which transactions are over, as `pg_snapshot` says it: 64-bit ids, the epoch included, so they never wrap."""

    xmin: int
    xmax: int
    running: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Read `xmin:xmax:xip,xip,…`. Raises ProtocolError."""
        try:
            low, high, running = text.split(":")
            return cls(int(low), int(high), tuple(int(one) for one in running.split(",") if one))
        except ValueError:
            raise ProtocolError(f"{text!r} is no snapshot", message_type="outbox") from None

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, self.running))}"

    def sees(self, xid: int) -> bool:
        """Say whether the transaction was over when the snapshot was taken."""
        return xid < self.xmax and (xid < self.xmin or xid not in self.running)


NOTHING = Snapshot(1, 1, ())
"""Sees no transaction: before the first batch."""


class Written(NamedTuple):
    """What a transaction left in the outbox."""

    xid: int
    last_number: int
    rows: int
    size_bytes: int
    micros: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What `snapshot` sees and `before` did not; the places of its transactions begin at `start_lsn`."""

    number: int
    before: Snapshot
    snapshot: Snapshot
    start_lsn: int

    def holds(self, xid: int) -> bool:
        """Say whether a transaction, if it committed, is in this batch."""
        return self.snapshot.sees(xid) and not self.before.sees(xid)


def placed(batch: Batch, transactions: Iterable[Written]) -> Iterator[tuple[int, Written]]:
    """
    Give the transactions of a batch, which come in order, their places: what stands for their commit LSN.

    Raises OutOfOrder where they are not in order, or one is not of this batch.
    """
    last = -1
    for place, one in enumerate(transactions):
        if one.last_number <= last or not batch.holds(one.xid):
            raise OutOfOrder(f"transaction {one.xid} is out of place in batch {batch.number} of the outbox")
        last = one.last_number
        yield batch.start_lsn + place, one


def end_lsn(batch: Batch, transactions: int) -> int:
    """Return where a batch of so many transactions ends: all its positions are before, all later ones are not."""
    return batch.start_lsn + transactions
