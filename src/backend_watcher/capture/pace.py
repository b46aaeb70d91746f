"""
How much a backfill reads at a time, and when it waits: the source and the stream come first. Pure.

A chunk is to take a fraction of a second: it holds a snapshot as long as it is read, and the next one cannot pass a
request of the application before it is done.
"""

from __future__ import annotations

from collections import deque

from backend_watcher.events.position import Position

CHUNK_SECONDS = 0.3
"""How long reading one chunk is to take."""

ROWS_FIRST, ROWS_MIN, ROWS_MAX = 5_000, 100, 100_000
PAGES_FIRST, PAGES_MIN, PAGES_MAX = 64, 1, 4_096
CHUNK_BYTES = 8 << 20
"""About what a chunk is to bring."""

_GROWTH_MAX = 2.0

BACKLOG_BYTES_MAX = 64 << 20
"""What may have been put into the stream and not yet been passed by every subscription it is for."""


class Size:
    """How large the next chunk is to be, in rows or in pages."""

    def __init__(self, first: int, least: int, most: int) -> None:
        self._least = least
        self._most = most
        self.value = first

    def took(self, seconds: float, size_bytes: int, *, full: bool = True) -> None:
        """Learn from a chunk of this size; one that came to the end of the table says little."""
        wished = self.value * min(CHUNK_SECONDS / max(seconds, 1e-6), CHUNK_BYTES / max(size_bytes, 1), _GROWTH_MAX)
        if full or wished < self.value:
            self.value = max(self._least, min(self._most, round(wished)))

    def failed(self) -> None:
        """Learn from a chunk that was not read in the time allowed."""
        self.value = max(self._least, self.value // 2)


def rows_size() -> Size:
    """Return the size for a table with a key."""
    return Size(ROWS_FIRST, ROWS_MIN, ROWS_MAX)


def pages_size() -> Size:
    """Return the size for a table without one."""
    return Size(PAGES_FIRST, PAGES_MIN, PAGES_MAX)


def pause_after(rows: int, seconds: float, rows_per_second_max: float | None) -> float:
    """Return how long to wait after a chunk that took so long, for the rate to stay below the limit."""
    if not rows_per_second_max:
        return 0.0
    return max(0.0, rows / rows_per_second_max - seconds)


class Backlog:
    """What was put into the stream, until the slowest subscription has passed it."""

    def __init__(self) -> None:
        self._placed: deque[tuple[Position, int]] = deque()
        self.size_bytes = 0

    def placed(self, last: Position, size_bytes: int) -> None:
        """Note a chunk, and the position of its last row."""
        self._placed.append((last, size_bytes))
        self.size_bytes += size_bytes

    def passed(self, cursor: Position) -> None:
        """Note that everything up to a position is settled."""
        while self._placed and self._placed[0][0] <= cursor:
            self.size_bytes -= self._placed.popleft()[1]

    @property
    def has_room(self) -> bool:
        """Say that another chunk may be put into the stream."""
        return self.size_bytes < BACKLOG_BYTES_MAX
