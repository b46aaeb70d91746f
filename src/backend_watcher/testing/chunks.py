"""Chunks as capture would make them, in the bytes a server would send, and reading them all back."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from backend_watcher.contracts import Journal
from backend_watcher.decode.assemble import Assembler
from backend_watcher.events.change import Change
from backend_watcher.events.chunk import Chunk
from backend_watcher.events.position import START, Position
from backend_watcher.events.table import Table
from backend_watcher.testing import builders

ALL = 1 << 30
"""A limit in bytes that no test reaches."""

LSN_STEP = 0x100


class ChunkMaker:
    """
    Makes the chunks that capture would make of one stream, in the bytes a server would send.

    Each call is one transaction that inserts rows `{"id": 1, "name": ...}`; ids count from 1 over all calls.
    """

    def __init__(self, table: Table | None = None, lsn: int = 0x1000) -> None:
        self.table = table if table is not None else builders.table()
        self.lsn = lsn
        self.made = 0
        self._open = False
        self._described: Table | None = None
        self._assembler = Assembler(START)

    def __call__(self, rows: int = 1, *, name: str = "x", commit: bool = True) -> Chunk:
        """Return a chunk of `rows` inserts; with `commit=False` the transaction goes on in the next chunk."""
        messages = []
        if not self._open:
            self.lsn += LSN_STEP
            messages.append(b"B" + struct.pack(">QqI", self.lsn, 0, 700))
        if self._described is not self.table:
            self._described = self.table
            messages.append(_relation(self.table))
        for _ in range(rows):
            self.made += 1
            row = builders.tuple_data(self.table, {"id": self.made, "name": name})
            messages.append(b"I" + struct.pack(">I", self.table.relation_oid) + b"N" + row)
        if commit:
            messages.append(b"C\0" + struct.pack(">QQq", self.lsn, self.lsn + 8, 0))
        self._open = not commit
        self._feed([b"w" + struct.pack(">QQq", self.lsn, self.lsn, 0) + message for message in messages])
        chunk = self._assembler.take()
        assert chunk is not None
        return chunk

    def _feed(self, messages: list[bytes]) -> None:
        data, sizes = b"".join(messages), [len(message) for message in messages]
        taken = self._assembler.feed(data, sizes)
        while taken < len(sizes):
            self._assembler.define(self.table)
            taken = self._assembler.feed(data, sizes, taken)


def _relation(table: Table) -> bytes:
    head = struct.pack(">I", table.relation_oid) + table.schema.encode() + b"\0" + table.name.encode() + b"\0"
    columns = [
        bytes([column.identity]) + column.name.encode() + b"\0" + struct.pack(">Ii", column.type_oid, column.modifier)
        for column in table.columns
    ]
    return b"R" + head + table.replica_identity.encode() + struct.pack(">H", len(columns)) + b"".join(columns)


async def read_all(journal: Journal, after: Position = START, limit_bytes: int = ALL) -> list[Change]:
    """Read to the end, in steps of about `limit_bytes`."""
    changes: list[Change] = []
    while blocks := await journal.read(after, limit_bytes):
        for block in blocks:
            assert block.first == block.changes[0].position
            assert block.last == block.changes[-1].position
            assert block.tables == {change.table.full_name for change in block.changes}
            changes += block.changes
        after = blocks[-1].last
    return changes


def ids(changes: Sequence[Change]) -> list[Any]:
    """Return the ids of changed rows."""
    return [change.row["id"] for change in changes]
