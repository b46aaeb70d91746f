"""
The space the journal takes on disk: the WAL is copied into the file now and then, and the file shrinks.

Both happen in the writer's thread between two groups, after the first has been said to be durable.
"""

from __future__ import annotations

import sqlite3

from backend_watcher import probes
from backend_watcher.journal.store import PAGE_BYTES

CHECKPOINT_BYTES = 32 << 20
"""Written to the WAL between two checkpoints, about."""

WAL_BYTES = 128 << 20
"""A WAL this large is not left to the readers' mercy: the writer waits for them."""

SHRINK_BYTES = 64 << 20
"""Free space kept in the file for the next changes; beyond it, and beyond half of the file, it shrinks."""

SHRINK_PAGES = 256
"""Pages given back in one step, so that no group waits long for it."""

GROUP_PAGES = 6
"""Pages a transaction writes beside its payload."""


HELD_PAGES = 2
"""Pages that each change writes that is kept apart or let go of: its row, its place in the index, its key."""


class Space:
    """Keeps the file and its WAL small."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._wal_bytes = 0
        self._may_shrink = True

    def wrote(self, blocks: int, size_bytes: int, held: int = 0) -> None:
        """Note that a group was written, with so many rows of what is held."""
        self._wal_bytes += size_bytes + (blocks + held * HELD_PAGES + GROUP_PAGES) * PAGE_BYTES

    def freed(self) -> None:
        """Note that blocks were deleted."""
        self._may_shrink = True

    def tidy(self) -> bool:
        """Do one small step; say whether there is another to do at once."""
        more = self._may_shrink and self._shrink()
        if self._wal_bytes > CHECKPOINT_BYTES:
            self._checkpoint()
        return more

    def _shrink(self) -> bool:
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        self._may_shrink = free * PAGE_BYTES > SHRINK_BYTES and free * 2 > pages
        if self._may_shrink:
            # It gives back one page each time it is stepped; only executescript steps it to its end.
            self._connection.executescript(f"PRAGMA incremental_vacuum({SHRINK_PAGES})")
            self.wrote(SHRINK_PAGES, 0)
        return self._may_shrink

    def _checkpoint(self) -> None:
        """Copy the WAL into the file; the next group then begins it anew, unless a reader still needs it."""
        probes.reach("journal.before_checkpoint")
        _, frames, copied = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if frames * PAGE_BYTES > WAL_BYTES:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        probes.reach("journal.after_checkpoint")
        self._wal_bytes = (frames - copied) * PAGE_BYTES
