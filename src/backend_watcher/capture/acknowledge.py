"""
What PostgreSQL may forget: the one place that decides it.

Rule 1: no other file computes an LSN to confirm.
Rule 2: this file is pure. No clock, no I/O, no logging; the same calls give the same answer, so every
schedule of arrivals, keepalives and journal groups can be tested against a model.
"""

from __future__ import annotations

from collections import deque

from backend_watcher.errors import OutOfOrder
from backend_watcher.events.position import format_lsn


class Acknowledgement:
    """
    The LSN before which the source holds nothing that is not durable here.

    Commits arrive in order; each is *owed* while it holds changes the journal has not made durable. A
    keepalive says that the server has sent every commit that ends before its LSN; in the middle of a
    transaction it says nothing, because that transaction's commit may end before it.
    """

    def __init__(self, start_lsn: int) -> None:
        self._safe = start_lsn
        self._received = start_lsn
        # The end of each owed commit, and how far the stream had been read before it.
        self._owed: deque[tuple[int, int]] = deque()
        self._newest_commit = start_lsn
        self._in_transaction = False

    @property
    def safe_lsn(self) -> int:
        """Everything that committed before is durable here, or was never ours. Never goes back."""
        return self._safe

    @property
    def received_lsn(self) -> int:
        """How far the server's stream has been read."""
        return self._received

    @property
    def idle(self) -> bool:
        """Say that nothing is owed and no transaction is under way."""
        return not self._owed and not self._in_transaction

    def fed(self, commit_end_lsn: int, owed: bool, in_transaction: bool) -> None:
        """
        Note what arrived. Raises OutOfOrder where commits go backwards.

        That is: the end of the newest commit so far, whether the journal must make changes of the commits since
        the last call durable, and whether a transaction is under way now.
        """
        self._in_transaction = in_transaction
        newest = self._newest_commit
        if commit_end_lsn < newest:
            raise OutOfOrder(f"a commit ends at {format_lsn(commit_end_lsn)}, after one at {format_lsn(newest)}")
        if owed and commit_end_lsn > newest:
            self._owed.append((commit_end_lsn, self._received))
        self._newest_commit = commit_end_lsn
        self._received = max(self._received, commit_end_lsn)
        self._advance()

    def keepalive(self, lsn: int) -> None:
        """Note that every commit which ends before `lsn` has been sent."""
        if not self._in_transaction:
            self._received = max(self._received, lsn)
            self._advance()

    def durable(self, lsn: int) -> None:
        """Note that the journal holds every change of the commits that end at or before `lsn`."""
        while self._owed and self._owed[0][0] <= lsn:
            self._owed.popleft()
        self._advance()

    def _advance(self) -> None:
        # In the middle of a transaction what was received ends with a commit, so it is safe all the same.
        self._safe = max(self._safe, self._owed[0][1] if self._owed else self._received)
