"""
Blocks that are no longer in memory, read from the file.

Readers that are behind are often behind together (after a restart, or when a sink everybody needs was down),
so what one of them had decoded is kept for a moment for the others.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from backend_watcher.decode.tables import load_table
from backend_watcher.errors import JournalBroken
from backend_watcher.events.chunk import Block
from backend_watcher.events.position import Position
from backend_watcher.events.table import Table
from backend_watcher.events.transaction import Stream
from backend_watcher.journal.block import Stored, check, cut, decode, unpack_versions
from backend_watcher.journal.store import broken_means, open_to_read
from backend_watcher.journal.tail import weigh

RECENT_BYTES = 16 << 20
"""Decoded blocks kept for other readers, as `tail.weigh` weighs them."""

READ_BLOCKS = 1000
"""Blocks in one read at most, however small they are."""

_AFTER = """
    SELECT last_lsn, last_ordinal, number, size_bytes FROM block
    WHERE (last_lsn, last_ordinal) > (?, ?) ORDER BY last_lsn, last_ordinal LIMIT ?"""

_BEFORE = """
    SELECT number FROM block WHERE (last_lsn, last_ordinal) <= (?, ?)
    ORDER BY last_lsn DESC, last_ordinal DESC LIMIT 1"""

_BLOCK = """
    SELECT first_lsn, first_ordinal, last_lsn, last_ordinal, commit_end_lsn, changes, captured_at, versions, crc,
           payload
    FROM block WHERE number = ?"""


class Reader:
    """A reading connection and what it read lately. All methods may be called from any thread; they wait."""

    def __init__(self, path: Path, tables: dict[int, Table], stream: Callable[[], Stream]) -> None:
        self._path = path
        self._tables = tables
        self._stream = stream
        self._lock = threading.Lock()
        self._recent: OrderedDict[Position, Block] = OrderedDict()
        self._recent_bytes = 0
        self._connection = open_to_read(path)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Give the connection alone, and at one moment: retention cannot delete a block that was just found."""
        with self._lock:
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._connection.execute("ROLLBACK")

    def read(self, after: Position, limit_bytes: int) -> list[Block]:
        """Return blocks after a position, at least one if there is one. Raises JournalBroken."""
        # One at a time: decoding is bound to one core anyway, and the second reader finds the first one's blocks.
        with broken_means(self._path, "cannot be read"), self.snapshot():
            blocks = [self._block(last, number) for last, number in self._find(after, limit_bytes)]
        if blocks and blocks[0].first <= after:
            blocks[0] = cut(blocks[0], after)
        return blocks

    def _find(self, after: Position, limit_bytes: int) -> list[tuple[Position, int]]:
        found: list[tuple[Position, int]] = []
        row = self._connection.execute(_BEFORE, after).fetchone()
        before = row[0] if row is not None else None
        for lsn, ordinal, number, size_bytes in self._connection.execute(_AFTER, (*after, READ_BLOCKS)):
            if before is not None and number != before + 1:
                # Blocks are numbered without gaps: a damaged index would skip changes without a word.
                raise JournalBroken(f"{self._path}: block {before} is followed by block {number}")
            before = number
            found.append((Position(lsn, ordinal), number))
            limit_bytes -= size_bytes
            if limit_bytes <= 0:
                break
        return found

    def _block(self, last: Position, number: int) -> Block:
        block = self._recent.get(last)
        if block is not None:
            self._recent.move_to_end(last)
            return block
        stored = self._load(number)
        block = decode(stored, self._tables, self._stream())
        self._keep(block)
        return block

    def _load(self, number: int) -> Stored:
        row = self._connection.execute(_BLOCK, (number,)).fetchone()
        if row is None:
            raise JournalBroken(f"{self._path}: the index names block {number}, which is missing")
        versions = unpack_versions(row[7])
        stored = Stored(Position(*row[0:2]), Position(*row[2:4]), row[4], row[5], row[6], versions, row[8], row[9])
        check(stored, str(self._path))
        for version in versions:
            if version not in self._tables:
                self._tables[version] = self._load_table(version)
        return stored

    def _load_table(self, version: int) -> Table:
        row = self._connection.execute("SELECT dump FROM shape WHERE version = ?", (version,)).fetchone()
        if row is None:
            raise JournalBroken(f"{self._path}: table version {version} is missing")
        try:
            table = load_table(row[0])
        except (ValueError, KeyError, TypeError) as error:
            raise JournalBroken(f"{self._path}: table version {version} cannot be read: {error}") from error
        if table.version != version:
            raise JournalBroken(f"{self._path}: table version {version} is not what was stored")
        return table

    def _keep(self, block: Block) -> None:
        self._recent[block.last] = block
        self._recent_bytes += weigh(block.size_bytes, len(block.changes))
        while self._recent_bytes > RECENT_BYTES and len(self._recent) > 1:
            _, old = self._recent.popitem(last=False)
            self._recent_bytes -= weigh(old.size_bytes, len(old.changes))
