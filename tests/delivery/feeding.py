"""Transactions of every operation, in the bytes a server would send, appended to a journal."""

from __future__ import annotations

import asyncio
import struct
from typing import Any, NamedTuple

from backend_watcher.contracts import Journal
from backend_watcher.decode.assemble import Assembler
from backend_watcher.decode.fetched import gone_rows
from backend_watcher.decode.messages import BACKFILL
from backend_watcher.decode.whole import begin_message, commit_message
from backend_watcher.events.position import START
from backend_watcher.events.table import Table
from backend_watcher.testing import builders

LSN_STEP = 0x100


async def ticks(count: int) -> None:
    """Let every other task of the loop go on, `count` times."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        passed = loop.create_future()
        loop.call_soon(lambda passed=passed: passed.done() or passed.set_result(None))  # type: ignore[misc]
        await passed


class Op(NamedTuple):
    """One row message: an update with `was` gives the row another key, a truncate has no key."""

    kind: str
    key: int = 0
    name: str = "x"
    was: int | None = None


class Feed:
    """Commits transactions to a journal, one chunk each."""

    def __init__(self, journal: Journal, table: Table | None = None) -> None:
        self.table = table if table is not None else builders.table()
        self.lsn = 0x1000
        self._journal = journal
        self._assembler = Assembler(START)
        self._described = False

    async def insert(self, *keys: int, name: str = "x") -> None:
        """Commit one transaction that inserts these keys."""
        await self.commit(*(Op("insert", key, name) for key in keys))

    async def commit(self, *ops: Op) -> None:
        """Commit one transaction."""
        self.lsn += LSN_STEP
        messages = [b"B" + struct.pack(">QqI", self.lsn, self.lsn, 700)]
        if not self._described:
            messages.append(self._relation())
            self._described = True
        messages += [self._message(op) for op in ops]
        messages.append(b"C\0" + struct.pack(">QQq", self.lsn, self.lsn + 8, 0))
        head = b"w" + struct.pack(">QQq", self.lsn, self.lsn, 0)
        data, sizes = b"".join(head + m for m in messages), [len(head + m) for m in messages]
        taken = self._assembler.feed(data, sizes)
        while taken < len(sizes):
            self._assembler.define(self.table)
            taken = self._assembler.feed(data, sizes, taken)
        chunk = self._assembler.take()
        assert chunk is not None
        await self._journal.append(chunk)

    async def say_gone(self, content: bytes, *keys: int) -> None:
        """Say that no row has these keys, as a repair does: in a chunk of their own, behind a message of ours."""
        self.lsn += LSN_STEP
        body = struct.pack(">BQ", 1, 0) + BACKFILL.encode() + b"\0" + struct.pack(">I", len(content)) + content
        begin, mark = begin_message(self.lsn, self.lsn, 700), b"w" + bytes(24) + b"M" + body
        assert self._assembler.feed(begin + mark, [len(begin), len(mark)]) == 2
        self._assembler.watermark = None
        self._assembler.redefine(self.table)
        self._assembler.reading = True
        lines = [b"%d\n" % key for key in keys]
        self._assembler.feed(*gone_rows(self.table.relation_oid, len(self.table.columns), [0], lines))
        self._assembler.reading = False
        end = commit_message(0, self.lsn, self.lsn + 8, 0)
        self._assembler.feed(end, [len(end)])
        chunk = self._assembler.take()
        assert chunk is not None
        await self._journal.append(chunk)

    def _message(self, op: Op) -> bytes:
        oid = struct.pack(">I", self.table.relation_oid)
        new = b"N" + self._row(id=op.key, name=op.name)
        if op.kind == "insert":
            return b"I" + oid + new
        if op.kind == "update":
            return b"U" + oid + (b"" if op.was is None else b"K" + self._row(id=op.was)) + new
        if op.kind == "delete":
            return b"D" + oid + b"K" + self._row(id=op.key)
        return b"T" + struct.pack(">IB", 1, 0) + oid

    def _row(self, **values: Any) -> bytes:
        return builders.tuple_data(self.table, values)

    def _relation(self) -> bytes:
        table = self.table
        names = table.schema.encode() + b"\0" + table.name.encode() + b"\0" + table.replica_identity.encode()
        columns = [
            bytes([c.identity]) + c.name.encode() + b"\0" + struct.pack(">Ii", c.type_oid, c.modifier)
            for c in table.columns
        ]
        return (
            b"R" + struct.pack(">I", table.relation_oid) + names + struct.pack(">H", len(columns)) + b"".join(columns)
        )
