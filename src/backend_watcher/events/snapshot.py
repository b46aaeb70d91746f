"""
What a query sees of transactions. Pure.

Transaction ids are 64 bits wide, with the epoch, as `pg_snapshot` has them (manual, section "Transaction ID and
Snapshot Information Functions").
"""

from __future__ import annotations

from dataclasses import dataclass

_HALF = 1 << 31
_WHOLE = 1 << 32


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    What a query saw: everything below `xmin`, nothing from `xmax` on, and none of `running` in between.

    `running` names transactions and not their subtransactions; and who is beyond `xmax` may be running as well.
    """

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
