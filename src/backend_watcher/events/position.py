"""Where a change sits in the one total order."""

from __future__ import annotations

from typing import NamedTuple

_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")


def format_lsn(lsn: int) -> str:
    """Write an LSN as PostgreSQL does: `16/B374D848` (manual, chapter "pg_lsn Type")."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def parse_lsn(text: str) -> int:
    """Read `16/B374D848` as a number. Raises ValueError if it is not an LSN."""
    high, slash, low = text.strip().partition("/")
    if not slash or not high or not low or len(high) > 8 or len(low) > 8 or not _HEXADECIMAL.issuperset(high + low):
        raise ValueError(f"{text!r} is not an LSN such as '16/B374D848'")
    return (int(high, 16) << 32) | int(low, 16)


class Position(NamedTuple):
    """
    A place in the order of commits: the commit's LSN, and the change's index in its transaction.

    An LSN alone identifies nothing: BEGIN and the first row share one, and so do the rows of one COPY.
    """

    commit_lsn: int
    ordinal: int

    def __str__(self) -> str:
        return f"{format_lsn(self.commit_lsn)}:{self.ordinal}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read what `str()` wrote. Raises ValueError if it is something else."""
        lsn, colon, ordinal = text.strip().rpartition(":")
        if not colon:
            raise ValueError(f"{text!r} is not a position such as '16/B374D848:0'")
        return cls(parse_lsn(lsn), int(ordinal))

    @property
    def sort_key(self) -> str:
        """24 hexadecimal digits that sort as text exactly as positions do."""
        return f"{self.commit_lsn:016x}{self.ordinal:08x}"


START = Position(0, -1)
"""Before everything."""
