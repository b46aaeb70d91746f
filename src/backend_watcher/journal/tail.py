"""
The newest blocks in memory, decoded at most once and shared by everyone who reads at the tail.

`floor` is the position after which nothing is missing here: a reader at or after it needs no disk.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping

from backend_watcher.events.chunk import Block
from backend_watcher.events.position import Position
from backend_watcher.events.table import Table
from backend_watcher.events.transaction import Stream
from backend_watcher.journal.block import Stored, cut, decode

TAIL_BYTES = 24 << 20
"""What the tail may weigh, payload and decoded changes together."""

CHANGE_BYTES = 200
"""What a decoded change weighs beside its payload."""

BLOCK_BYTES = 600
"""What a block weighs beside its payload and changes."""


def weigh(payload_bytes: int, changes: int) -> int:
    """Return about how many bytes of memory a decoded block takes."""
    return payload_bytes + CHANGE_BYTES * changes + BLOCK_BYTES


class _Entry:
    __slots__ = ("block", "stored", "weight_bytes")

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self.block: Block | None = None
        self.weight_bytes = weigh(len(stored.payload), stored.changes)


class Tail:
    """A bounded run of the newest blocks. All methods may be called from any thread."""

    def __init__(
        self,
        floor: Position,
        tables: Mapping[int, Table],
        stream: Callable[[], Stream],
        limit_bytes: int | None = TAIL_BYTES,
    ) -> None:
        self._tables = tables
        self._stream = stream
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._decoding = threading.Lock()
        self._floor = floor
        self._entries: list[_Entry] = []
        # The last position of each entry, for bisect.
        self._lasts: list[Position] = []
        self._weight_bytes = 0

    def extend(self, blocks: Iterable[Stored]) -> None:
        """Add newer blocks; let go of the oldest ones above the limit."""
        with self._lock:
            for stored in blocks:
                entry = _Entry(stored)
                self._entries.append(entry)
                self._lasts.append(stored.last)
                self._weight_bytes += entry.weight_bytes
            # Deleting from the front of a list moves the rest: not for every block, but an eighth at a time.
            if self._limit_bytes is not None and self._weight_bytes > self._limit_bytes:
                self._let_go(self._limit_bytes - self._limit_bytes // 8)

    @property
    def floor(self) -> Position:
        """Everything after it, as far as it was ever here, is in memory."""
        return self._floor

    def _let_go(self, wished_bytes: int) -> None:
        count = 0
        while self._weight_bytes > wished_bytes and count < len(self._entries) - 1:
            self._weight_bytes -= self._entries[count].weight_bytes
            count += 1
        if count:
            self._floor = self._lasts[count - 1]
            del self._entries[:count]
            del self._lasts[:count]

    def withdraw(self, after: Position) -> None:
        """Drop the blocks after a position: they will never be durable."""
        with self._lock:
            count = bisect_right(self._lasts, after)
            self._weight_bytes -= sum(entry.weight_bytes for entry in self._entries[count:])
            del self._entries[count:]
            del self._lasts[count:]

    def forget(self, through: Position) -> None:
        """Drop blocks the journal no longer has. What it still has after `floor` is all here, as before."""
        with self._lock:
            count = bisect_right(self._lasts, through)
            self._weight_bytes -= sum(entry.weight_bytes for entry in self._entries[:count])
            del self._entries[:count]
            del self._lasts[:count]

    def read(self, after: Position, limit_bytes: int) -> list[Block] | None:
        """Return blocks after a position, at least one if there is one; None if older ones are needed first."""
        with self._lock:
            if after < self._floor:
                return None
            start = end = bisect_right(self._lasts, after)
            taken = 0
            while end < len(self._entries) and taken < limit_bytes:
                taken += len(self._entries[end].stored.payload)
                end += 1
            entries = self._entries[start : max(end, min(start + 1, len(self._entries)))]
        blocks = [entry.block or self._decode(entry) for entry in entries]
        if blocks and blocks[0].first <= after:
            blocks[0] = cut(blocks[0], after)
        return blocks

    def _decode(self, entry: _Entry) -> Block:
        with self._decoding:
            if entry.block is None:
                entry.block = decode(entry.stored, self._tables, self._stream())
            return entry.block

    def oldest(self) -> Iterable[Stored]:
        """Return the blocks held, from the oldest on."""
        with self._lock:
            return [entry.stored for entry in self._entries]
