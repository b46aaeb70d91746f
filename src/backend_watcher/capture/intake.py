"""
What arrives becomes chunks in the journal: checked, numbered, told to the acknowledgement, appended.

A transaction that came whole goes straight through. One that comes in parts waits on disk for its commit, and then
goes the same way in pieces, while the server waits: at no time is more of it in memory than one piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from backend_watcher import probes
from backend_watcher.capture.acknowledge import Acknowledgement
from backend_watcher.capture.placing import Placed, Placement, Placements
from backend_watcher.capture.spill import Spill
from backend_watcher.contracts import Journal, Observer
from backend_watcher.decode.assemble import Assembler
from backend_watcher.decode.pgoutput import Relation, StreamAbort, StreamCommit, StreamStart
from backend_watcher.decode.streams import BlockTaker
from backend_watcher.decode.tables import key_of, make_table
from backend_watcher.decode.whole import begin_message, commit_message
from backend_watcher.errors import ProtocolError
from backend_watcher.events.position import Position
from backend_watcher.events.table import Table
from backend_watcher.postgres import catalog
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.replication import Received

PIECE_BYTES = 256 * 1024
"""How much of a transaction that waited on disk is appended at a time; about the size of a journal block."""


class Describer:
    """Makes the table that a Relation describes; its key comes from the catalog, once for each shape."""

    def __init__(self, connection: Connection, keys: dict[int, tuple[str, ...]]) -> None:
        self._connection = connection
        # The keys of the watched tables, as they were looked up when the session began.
        self._keys = dict(keys)

    async def table(self, relation: Relation) -> Table:
        """Return the table. Raises SourceUnavailable."""
        key = self._keys.pop(relation.relation_oid, None)
        if key is None:
            key = await catalog.primary_key(self._connection, relation.relation_oid)
        columns = [(c.name, c.type_oid, c.modifier, c.identity) for c in relation.columns]
        key = key_of(columns, relation.replica_identity, key)
        return make_table(
            relation.relation_oid, relation.schema, relation.name, relation.replica_identity, columns, key
        )


class Intake:
    """Takes what one session receives. `begin` it when the journal holds all that earlier ones queued."""

    def __init__(
        self,
        journal: Journal,
        observer: Observer,
        acknowledgement: Acknowledgement,
        describer: Describer,
        spill: Spill | None,
        start_lsn: int,
        *,
        messages: bool = False,
        ddl: Callable[[], None] | None = None,
        marked: Callable[[], None] | None = None,
        placements: Placements | None = None,
    ) -> None:
        self._journal = journal
        self._observer = observer
        self.acknowledgement = acknowledgement
        self._describer = describer
        self._spill = spill
        self._start_lsn = start_lsn
        self._messages = messages
        self._ddl = ddl
        self._marked = marked
        self._placements = placements if placements is not None else Placements()
        self._assembler: Assembler
        self._block: BlockTaker | None = None
        # When a table was last described: in the stream itself, and in each transaction in progress.
        self._turn = 0
        self._described: dict[int, int] = {}
        self._described_in: dict[int, dict[int, int]] = {}

    def begin(self) -> None:
        """Go on after the newest change of the journal."""
        self._assembler = Assembler(self._journal.last_position, self._start_lsn, self._messages)

    @property
    def open_commit_lsn(self) -> int | None:
        """Where the transaction that is being received commits; None between two."""
        return self._assembler.open_commit_lsn()

    async def take(self, received: Received) -> None:
        """Take what arrived. Raises ProtocolError, SpillFull, SourceUnavailable, JournalBroken."""
        committed = self._assembler.commit_end_lsn
        data, sizes = received.data, received.sizes
        taken = 0
        while taken < len(sizes):
            self._turn += 1
            if self._block is not None:
                taken = self._to_disk(self._block, data, sizes, taken)
                continue
            taken = await self._feed(data, sizes, taken)
            self._note_described()
            if self._assembler.streamed is not None:
                await self._streamed(self._assembler.streamed)
                taken += 1
        if self._assembler.commit_end_lsn != committed:
            probes.reach("capture.committed")
        if self._assembler.ddl:
            self._assembler.ddl = False
            if self._ddl is not None:
                self._ddl()
        self._tell()
        if received.keepalive_lsn and self._block is None:
            self.acknowledgement.keepalive(received.keepalive_lsn)
        await self._append()
        if self._assembler.marked:
            self._assembler.marked = False
            if self._marked is not None:
                self._marked()

    async def _feed(self, data: bytes, sizes: list[int], start: int = 0) -> int:
        """Feed the assembler to the end, or to a message about a transaction in progress; return how far."""
        assembler = self._assembler
        taken = assembler.feed(data, sizes, start)
        while True:
            if assembler.watermark is not None:
                await self._mark(assembler.watermark)
            elif assembler.wants is not None:
                table = await self._describer.table(assembler.wants)
                assembler.define(table)
                self._placements.described(table)
            else:
                return taken
            if taken == len(sizes):
                return taken
            taken = assembler.feed(data, sizes, taken)

    async def _mark(self, content: bytes) -> None:
        """Put the rows here that belong here, if they are not stale."""
        assembler = self._assembler
        assembler.watermark = None
        placement = self._placements.take(content)
        if placement is None:
            return  # of an earlier session, or somebody else's
        # What came before has to be known to judge; and a block has rows that were read, or none.
        self._tell()
        await self._append()
        judged = placement.judge()
        if judged is None:
            placement.tell(Placed(again=True))
            return
        data, sizes, stale = judged
        probes.reach("backfill.before_placed")
        placed = await self._place(placement, data, sizes)
        placement.tell(Placed(len(sizes), stale, len(data), placed))

    async def _place(self, placement: Placement, data: bytes, sizes: list[int]) -> Position | None:
        """Feed rows in pieces, and return the position of the last."""
        assembler, table = self._assembler, placement.table
        last: Position | None = None
        before = assembler.table(table.relation_oid)
        assembler.redefine(table)
        assembler.reading = True
        begin = at = number = 0
        for end, size in enumerate(sizes, 1):
            at += size
            if at - begin >= PIECE_BYTES or end == len(sizes):
                assembler.feed(data[begin:at], sizes[number:end])
                begin, number = at, end
                self._tell()
                last = await self._append() or last
                probes.reach("backfill.placed_piece")
                # Feedback is due meanwhile, also where the journal always has room.
                await asyncio.sleep(0)
        assembler.reading = False
        if before is not None:
            # The server's own rows have the shape that it described.
            assembler.redefine(before)
        return last

    @property
    def _parts(self) -> Spill:
        if self._spill is None:
            raise ProtocolError("a part of a transaction in progress, which was not asked for", message_type="S")
        return self._spill

    def _to_disk(self, block: BlockTaker, data: bytes, sizes: list[int], start: int) -> int:
        taken = block.take(data, sizes, start)
        self._parts.append(block.xid, block.runs)
        self._described_in.setdefault(block.xid, {}).update(dict.fromkeys(block.described, self._turn))
        block.runs, block.described = [], []
        if block.ended:
            self._block = None
        return taken

    async def _streamed(self, message: StreamStart | StreamCommit | StreamAbort) -> None:
        """Do what a message about a transaction in progress asks for."""
        match message:
            case StreamStart():
                self._block = BlockTaker(message.xid)
                # Known from now on, also if nothing of it is for us: what is not known cannot be committed.
                self._parts.append(message.xid, ())
            case StreamAbort():
                if self._spill is not None:
                    self._spill.undo(message.xid, message.subxid)
                if message.xid == message.subxid:
                    self._described_in.pop(message.xid, None)
            case StreamCommit():
                probes.reach("capture.before_streamed")
                await self._deliver(message)
                self._parts.forget(message.xid)

    async def _deliver(self, commit: StreamCommit) -> None:
        """Feed a transaction that waited on disk, as if it had come whole."""
        described = self._described_in.pop(commit.xid, {})
        newer = [self._assembler.table(oid) for oid, turn in described.items() if self._described.get(oid, 0) > turn]
        begin = begin_message(commit.commit_lsn, commit.commit_micros, commit.xid)
        await self._feed(begin, [len(begin)])
        for run in self._parts.read(commit.xid):
            await self._feed(run.data, run.sizes)
            if self._assembler.size_bytes >= PIECE_BYTES:
                self._tell()
                await self._append()
                probes.reach("capture.streamed_piece")
                # Feedback is due meanwhile, also where the journal always has room.
                await asyncio.sleep(0)
        end = commit_message(commit.flags, commit.commit_lsn, commit.end_lsn, commit.commit_micros)
        await self._feed(end, [len(end)])
        # The server describes a table once: what it said last is what it goes by, although it comes earlier now.
        for table in filter(None, newer):
            self._assembler.redefine(table)
        self._described |= {oid: max(turn, self._described.get(oid, 0)) for oid, turn in described.items()}
        self._assembler.described.clear()

    def _note_described(self) -> None:
        described = self._assembler.described
        if described:
            self._described.update(dict.fromkeys(described, self._turn))
            described.clear()

    def _tell(self) -> None:
        """Tell the acknowledgement, before anything of it can become durable."""
        assembler = self._assembler
        self.acknowledgement.fed(assembler.commit_end_lsn, assembler.owed, assembler.in_transaction)

    async def _append(self) -> Position | None:
        """Append what was fed, and return the position of its last change."""
        assembler = self._assembler
        owed, size = assembler.owed, assembler.size_bytes
        chunk = assembler.take()
        if chunk is not None:
            probes.reach("capture.before_append")
            self._placements.note(chunk)
            await self._journal.append(chunk)
            probes.reach("capture.after_append")
            self._observer.captured(chunk.changes, size, chunk.commit_end_lsn)
        elif owed:
            # The commit came apart from its rows, which are in an earlier chunk.
            await self._journal.advance(assembler.commit_end_lsn)
        return chunk.last if chunk is not None else None
