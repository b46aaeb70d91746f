"""
Which rows of a chunk that was read from a table are still true where the stream puts them. Pure.

A chunk is read under a snapshot S, and takes its place in the stream at a watermark written afterwards. A row is
stale there if a transaction changed it that S does not see, and whose commit the stream brought before the watermark.
Such a transaction need not have committed after S was taken: PostgreSQL writes the commit record first and lets
others see it later, with synchronous replication much later (`ProcArrayEndTransaction` comes after `SyncRepWaitForLSN`
in its CommitTransaction). So the chunk's own `pg_current_snapshot()` decides, and never the order of positions.

Transaction ids are 64 bits wide here, with the epoch (`events/snapshot.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from backend_watcher.events.snapshot import Snapshot, widen

KEYS_MAX = 500_000
"""Keys remembered, over all transactions; one that would bring more counts as one that changed everything."""


class Touched:
    """What transactions did to the rows of one table."""

    __slots__ = ("everything", "keys")

    def __init__(self, keys: AbstractSet[bytes], everything: bool) -> None:
        self.keys = keys
        self.everything = everything
        """A truncate, or more keys than could be remembered: no row of the chunk can be told to be true."""


class Window:
    """
    What the stream has carried of some tables and a snapshot may not have seen.

    `near` is a 64-bit transaction id of today.
    """

    def __init__(self, near: int) -> None:
        self._near = near
        self._earlier: set[int] = set()
        # By transaction: the keys of each table; a table without keys was changed as a whole.
        self._seen: dict[int, dict[str, set[bytes] | None]] = {}
        self._count = 0

    def opened(self, writing: Iterable[int]) -> None:
        """
        Note which transactions were not over once everything that the stream brings was being looked at.

        Of these alone it is not known whether their commit came before. A snapshot of that moment does not name all
        of them: its `xmax` is behind the newest that is over, and who is beyond that is running or does not exist yet.
        """
        self._earlier.update(writing)

    def settle(self, xids: Iterable[int]) -> None:
        """Note transactions that had surely not committed yet when the window was opened."""
        self._earlier.difference_update(xids)

    def touch(self, xid: int, table: str, keys: Iterable[bytes]) -> None:
        """Note what a committed transaction did to rows of a table; called again for its other rows."""
        tables = self._seen.setdefault(widen(xid, self._near), {})
        known = tables.setdefault(table, set())
        if known is None:
            return
        before = len(known)
        known.update(keys)
        self._count += len(known) - before
        if self._count > KEYS_MAX:
            self.touch_all(xid, table)

    def touch_all(self, xid: int, table: str) -> None:
        """Note that a committed transaction changed a table as a whole."""
        tables = self._seen.setdefault(widen(xid, self._near), {})
        self._count -= len(tables.get(table) or ())
        tables[table] = None

    def ended(self, xid: int) -> None:
        """Note the end of a transaction that the stream brought, whatever it did: it is no riddle any more."""
        self._earlier.discard(widen(xid, self._near))

    def riddles(self, snapshot: Snapshot) -> frozenset[int]:
        """Return the transactions that the snapshot does not see, and whose commit may have come before the window."""
        return frozenset(xid for xid in self._earlier if not snapshot.sees(xid))

    def touched(self, snapshot: Snapshot, table: str) -> Touched:
        """Return what transactions did to a table that the snapshot does not see."""
        keys: set[bytes] = set()
        for xid, tables in self._seen.items():
            if table in tables and not snapshot.sees(xid):
                known = tables[table]
                if known is None:
                    return Touched(keys, True)
                keys |= known
        return Touched(keys, False)

    def forget(self, snapshot: Snapshot) -> None:
        """Forget what this snapshot sees: so does every later one."""
        self._near = max(self._near, snapshot.xmax)
        for xid in [xid for xid in self._seen if snapshot.sees(xid)]:
            gone = self._seen.pop(xid)
            self._count -= sum(len(keys) for keys in gone.values() if keys is not None)
        self._earlier = {xid for xid in self._earlier if not snapshot.sees(xid)}

    def __len__(self) -> int:
        return self._count
