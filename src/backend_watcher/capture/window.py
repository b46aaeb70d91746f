"""
Which rows of a chunk that was read from a table are still true where the stream puts them. Pure.

A chunk is read under a snapshot S, and takes its place in the stream at a watermark written afterwards. A row is
stale there if a transaction changed it that S does not see, and whose commit the stream brought before the watermark.
Such a transaction need not have committed after S was taken: PostgreSQL writes the commit record first and lets
others see it later, with synchronous replication much later (`ProcArrayEndTransaction` comes after `SyncRepWaitForLSN`
in its CommitTransaction). So the chunk's own `pg_current_snapshot()` decides, and never the order of positions.

Transaction ids are 64 bits wide here, with the epoch, as `pg_snapshot` has them.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

KEYS_MAX = 500_000
"""Keys remembered, over all transactions; one that would bring more counts as one that changed everything."""

_HALF = 1 << 31
_WHOLE = 1 << 32


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a query saw: everything below `xmin`, nothing from `xmax` on, and none of `running` in between."""

    xmin: int
    xmax: int
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Read the text form of a pg_snapshot, `xmin:xmax:xip,xip`. Raises ValueError."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(map(int, filter(None, running.split(",")))))

    def sees(self, xid: int) -> bool:
        """Say whether what a committed transaction did is seen."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.running)


def widen(xid: int, near: int) -> int:
    """Return the 64-bit transaction id that is nearest to another one, of the 32 bits that the stream carries."""
    wide = (near & ~(_WHOLE - 1)) | xid
    if wide > near + _HALF and wide >= _WHOLE:
        return wide - _WHOLE
    if wide + _HALF < near:
        return wide + _WHOLE
    return wide


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

    `near` is a 64-bit transaction id of today. `earlier` are the transactions that were running after the window had
    been opened: of these alone it is not known whether their commit came before, and was not looked at.
    """

    def __init__(self, near: int) -> None:
        self._near = near
        self._earlier: set[int] = set()
        # By transaction: the keys of each table; a table without keys was changed as a whole.
        self._seen: dict[int, dict[str, set[bytes] | None]] = {}
        self._count = 0

    def opened(self, running: Iterable[int]) -> None:
        """Note which transactions were running once everything that the stream brings was being looked at."""
        self._earlier.update(running)

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
        return frozenset(self._earlier & snapshot.running)

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
        self._earlier &= snapshot.running

    def __len__(self) -> int:
        return self._count
