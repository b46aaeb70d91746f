"""
Rows that were already there: read a chunk at a time, and put into the stream where a watermark says, while it runs.

One task for each table that is being read, each with a connection of its own. A chunk is read; a message of ours is
written; where the stream brings that message, `placing.py` judges the rows and `intake.py` appends them; then the note
of the journal says how far the backfill is. Nothing here ever stops the stream: what fails, fails for its table.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from dataclasses import dataclass, replace

import structlog

from backend_watcher import probes
from backend_watcher.capture.backfill_jobs import (
    Backfill,
    BackfillState,
    load_backfills,
    obey,
    save_backfill,
)
from backend_watcher.capture.intake import Describer
from backend_watcher.capture.pace import Backlog, Size, pages_size, pause_after, rows_size
from backend_watcher.capture.placing import Placed, Placement, Placements
from backend_watcher.capture.window import Window
from backend_watcher.contracts import Journal
from backend_watcher.decode.fetched import fetched_rows, gone_rows, key_texts
from backend_watcher.decode.messages import BACKFILL, CONTEXT_BYTES_MAX
from backend_watcher.decode.pgoutput import Relation, RelationColumn
from backend_watcher.errors import SourceRefused, SourceUnavailable, WatcherError, in_one_line
from backend_watcher.events.snapshot import Snapshot
from backend_watcher.events.table import Table
from backend_watcher.postgres import catalog, outbox, reading
from backend_watcher.postgres.connect import Connection, connect
from backend_watcher.postgres.reading import Asked, ReadChunk, ReadTable
from backend_watcher.postgres.upkeep import emit_mark, without_waiting_for_standbys

log = structlog.get_logger("watcher")

LOOK_SECONDS = 0.5
"""How often the journal is looked at for what was asked; the source never is."""

AT_ONCE = 2
"""Tables that are read at a time."""

PLACE_SECONDS_MAX = 60.0
"""How long a chunk waits for its watermark; the stream may be far behind."""

AGAIN_SECONDS = 0.1
RIDDLE_SECONDS = 0.5
RETRY_SECONDS = 2.0
TRIES_MAX = 30
"""Failures in a row that time may mend, before a backfill is given up."""


class Backfills:
    """
    Runs what the journal says is to be read, as long as a session lives.

    Without a publication the stream is an outbox, and watermarks are written there.
    """

    def __init__(self, dsn: str, publication: str | None, journal: Journal, placements: Placements) -> None:
        self._dsn = dsn
        self._publication = publication
        self._journal = journal
        self._placements = placements
        self._running: dict[int, asyncio.Task[None]] = {}

    async def run(self, describer: Describer) -> None:
        """Look for backfills, and run them, until cancelled."""
        try:
            while True:
                for number in [number for number, task in self._running.items() if task.done()]:
                    self._running.pop(number).result()
                cursors = (await self._journal.cursors()).keys()
                for noted in await load_backfills(self._journal):
                    if noted.number in self._running:
                        continue
                    job = await obey(self._journal, noted)
                    due = job.state in (BackfillState.WAITING, BackfillState.RUNNING)
                    # A subscription that has not begun yet would not get what is put into the stream now.
                    begun = all(name in cursors for name in job.subscriptions)
                    if due and begun and len(self._running) < AT_ONCE:
                        one = _One(self._dsn, self._publication, self._journal, self._placements, describer, job)
                        self._running[job.number] = asyncio.create_task(one.run())
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Fetched:
    """A chunk that was read, None where the table was altered meanwhile, and the place where it is expected."""

    placement: Placement
    chunk: ReadChunk | None
    seconds: float


class _One:
    """One backfill on its way."""

    def __init__(
        self,
        dsn: str,
        publication: str | None,
        journal: Journal,
        placements: Placements,
        describer: Describer,
        job: Backfill,
    ) -> None:
        self._dsn = dsn
        self._publication = publication
        self._journal = journal
        self._placements = placements
        self._describer = describer
        self._job = job
        # Kept over reconnects: a chunk that could not be read has to be smaller the next time.
        self._rows, self._pages = rows_size(), pages_size()
        self._size: Size = self._rows
        self._backlog = Backlog()
        self._conn: Connection | None = None
        self._ahead: asyncio.Task[_Fetched] | None = None

    async def run(self) -> None:
        """Read the table to its end, until paused or cancelled, or until it fails for good."""
        begun = time.monotonic()
        log.info("backfill", number=self._job.number, table=self._job.table, rows=self._job.rows)
        before = self._job.seconds
        self._job = replace(self._job, state=BackfillState.RUNNING, begun_at=self._job.begun_at or time.time())
        tries = 0
        while self._job.state is BackfillState.RUNNING:
            chunks = self._job.chunks
            try:
                await self._read()
            except (SourceUnavailable, TimeoutError) as error:
                tries = 1 if self._job.chunks > chunks else tries + 1
                self._size.failed()
                said = error.message if isinstance(error, WatcherError) else "the stream did not bring the watermark"
                if tries >= TRIES_MAX:
                    await self._end(BackfillState.FAILED, said)
                    break
                await self._say(f"{said}; again in {RETRY_SECONDS:g} s")
                await asyncio.sleep(RETRY_SECONDS)
            except WatcherError as error:
                await self._end(BackfillState.FAILED, f"{in_one_line(error)} {error.remedy}")
            except Exception as error:
                # A fault of ours: it ends this backfill, and never the stream.
                log.exception("backfill", number=self._job.number)
                await self._end(BackfillState.FAILED, in_one_line(error))
            finally:
                self._job = replace(self._job, seconds=round(before + time.monotonic() - begun, 3))
                await self._close()
        log.info("backfill ended", number=self._job.number, state=str(self._job.state), rows=self._job.rows)

    async def _read(self) -> None:
        """Read from where the last durable chunk ended."""
        self._conn = conn = await connect(self._dsn, purpose="backfill")
        await without_waiting_for_standbys(conn)
        table = await self._describe(conn)
        self._size = self._rows if table.key else self._pages
        window = self._placements.open(table.full_name, Snapshot.parse(await reading.running_now(conn)).xmax)
        try:
            # Asked after the window was opened: whatever committed before, and is not seen, is among these.
            writing = await reading.writing_now(conn)
            window.opened(writing)
            window.settle(await reading.not_committing(conn, writing))
            await self._save(replace(self._job, estimated_rows=table.estimated_rows, detail=""))
            while self._job.state is BackfillState.RUNNING:
                await self._until_there_is_room()
                table = await self._chunk(conn, table, window)
                if conn.closed:
                    return
        finally:
            if self._ahead is not None:
                # The session is closed anyway, and nobody is to wait for an answer.
                self._ahead.cancel()
            await self._drop_ahead()
            self._placements.close(table.full_name, window)

    async def _chunk(self, conn: Connection, table: ReadTable, window: Window) -> ReadTable:
        """See a chunk into the stream, while the next one is read; return the table as it is now."""
        job, begun = self._job, time.monotonic()
        ahead, self._ahead = self._ahead, None
        fetched = await (ahead or self._fetch(conn, table, window, job.after))
        chunk, placement = fetched.chunk, fetched.placement
        try:
            if chunk is None:
                await self._save(replace(job, again=job.again + 1))
                return await self._describe(conn)
            snapshot = Snapshot.parse(chunk.snapshot)
            if await self._riddled(conn, window, snapshot):
                return table
            placed = Placed()
            if chunk.lines or chunk.gone:
                placement.fill(*_messages(table, placement.table, chunk), snapshot, exact=chunk.exact)
                probes.reach("backfill.before_mark")
                # What came before is noted by now, so no more than this chunk can come twice.
                await self._mark(conn, placement.content)
                if chunk.more and not conn.closed and job.rows_per_second_max is None:
                    self._ahead = asyncio.create_task(self._fetch(conn, table, window, _end_of(table, chunk)))
                async with asyncio.timeout(PLACE_SECONDS_MAX):
                    placed = await placement.done
                probes.reach("backfill.placed")
        finally:
            self._placements.forget(placement)
        window.forget(snapshot)
        if placed.again:
            await self._drop_ahead()
            await self._save(replace(job, again=job.again + 1))
            await asyncio.sleep(AGAIN_SECONDS)
            return await self._describe(conn) if not conn.closed else table
        self._size.took(fetched.seconds, placed.size_bytes, full=chunk.more)
        await self._placed(table, chunk, placed)
        pause = pause_after(len(chunk.lines), time.monotonic() - begun, job.rows_per_second_max)
        if pause and self._job.state is BackfillState.RUNNING:
            await asyncio.sleep(pause)
        return table

    async def _fetch(self, conn: Connection, table: ReadTable, window: Window, after: tuple[str, ...]) -> _Fetched:
        """Read the chunk behind a key. It is announced before, so that what the stream says of the table is heard."""
        job, begun = self._job, time.monotonic()
        shape = await self._describer.table(_relation(table))
        placement = self._placements.expect(self._content(), window, shape)
        try:
            asked, gone = Asked(job.where, job.keys), job.removes and not after
            size = self._size.value
            chunk = await reading.read_chunk(conn, self._publication, table, asked, after, size, gone=gone)
        except BaseException:
            self._placements.forget(placement)
            raise
        return _Fetched(placement, chunk, time.monotonic() - begun)

    async def _drop_ahead(self) -> None:
        """Let what was read ahead be: it is read again, if it is wanted."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return
        # Waited for: a question that is given up in the middle leaves a session of no use.
        await asyncio.wait([ahead])
        if not ahead.cancelled() and ahead.exception() is None:
            self._placements.forget(ahead.result().placement)

    async def _mark(self, conn: Connection, content: bytes) -> None:
        if not conn.closed:
            await self._emit(conn, content)
            return
        # What was read was more than was wished: the connection is of no use any more, the rows are.
        other = await connect(self._dsn, purpose="backfill")
        try:
            await without_waiting_for_standbys(other)
            await self._emit(other, content)
        finally:
            await other.close()

    async def _emit(self, conn: Connection, content: bytes) -> None:
        write = emit_mark if self._publication is not None else outbox.say
        await write(conn, BACKFILL, content.decode())

    async def _placed(self, table: ReadTable, chunk: ReadChunk, placed: Placed) -> None:
        """Write down how far the backfill is. The rows were appended before, so they are durable with it."""
        job = self._job
        if placed.last is not None:
            self._backlog.placed(placed.last, placed.size_bytes)
        job = replace(
            job,
            after=_end_of(table, chunk) if chunk.more else job.after,
            rows=job.rows + placed.rows,
            stale=job.stale + placed.stale,
            chunks=job.chunks + 1,
            size_bytes=job.size_bytes + placed.size_bytes,
            detail="",
        )
        probes.reach("backfill.before_note")
        if chunk.more:
            await self._save(job)
        else:
            self._job = job
            await self._end(BackfillState.DONE, "")
        probes.reach("backfill.after_note")

    async def _riddled(self, conn: Connection, window: Window, snapshot: Snapshot) -> bool:
        """Say that the chunk has to be read again, after a while: somebody may have committed before we looked."""
        riddles = window.riddles(snapshot)
        if not riddles:
            return False
        if not conn.closed:
            # Whoever waits for its application now did not write its commit before the window was opened.
            window.settle(await reading.not_committing(conn, riddles))
            riddles = window.riddles(snapshot)
        if not riddles:
            return False
        if conn.closed:
            return True
        pids = await reading.who_runs(conn, riddles)
        who = f"pid {', '.join(map(str, pids))}" if pids else f"id {min(riddles)}"
        await self._say(f"waiting for a transaction that was open before ({who})")
        await asyncio.sleep(RIDDLE_SECONDS)
        return True

    async def _until_there_is_room(self) -> None:
        """Wait while the subscriptions it is for are far behind, and do what people wish."""
        while True:
            await self._obey()
            cursors = await self._journal.cursors()
            theirs = [cursors[name] for name in self._job.subscriptions or cursors if name in cursors]
            if theirs:
                self._backlog.passed(min(theirs))
            if self._backlog.has_room or self._job.state is not BackfillState.RUNNING:
                return
            await self._say("waiting for the subscriptions to deliver what was read")
            await asyncio.sleep(LOOK_SECONDS)

    async def _describe(self, conn: Connection) -> ReadTable:
        found = await catalog.find_tables(conn, [self._job.table])
        facts = found.tables.get(self._job.table)
        table = await reading.describe(conn, self._publication, facts.oid) if facts is not None else None
        if table is None:
            raise SourceRefused(f"table {self._job.table} is not there", remedy="Ask for it by its name of today.")
        return table

    def _content(self) -> bytes:
        """Return what the message says: whom the rows are for, and what nobody else can know."""
        names = list(self._job.subscriptions)
        said = {"backfill": self._job.name, "subscriptions": names, "token": secrets.token_hex(16)}
        if self._job.repair:
            said["repair"] = self._job.name
        content = json.dumps(said).encode()
        if len(content) > CONTEXT_BYTES_MAX:
            raise SourceRefused(
                f"backfill {self._job.number} is for too many subscriptions", remedy="Ask for fewer at a time."
            )
        return content

    # Its note

    async def _obey(self) -> None:
        """Do what people wished meanwhile."""
        self._job = await obey(self._journal, self._job)

    async def _save(self, job: Backfill) -> None:
        self._job = job
        await save_backfill(self._journal, job)

    async def _say(self, detail: str) -> None:
        if self._job.detail != detail:
            await self._save(replace(self._job, detail=detail))

    async def _end(self, state: BackfillState, detail: str) -> None:
        await self._save(replace(self._job, state=state, detail=detail, ended_at=time.time()))

    async def _close(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None and not conn.closed:
            await conn.close()


def _relation(table: ReadTable) -> Relation:
    """Say of a table what the server would say of it in the stream."""
    columns = tuple(RelationColumn(c.name, c.type_oid, c.modifier, c.identity) for c in table.columns)
    return Relation(None, table.oid, table.schema, table.name, table.replica_identity, columns)


def _messages(table: ReadTable, shape: Table, chunk: ReadChunk) -> tuple[bytes, list[int]]:
    """Make the messages of a chunk's rows, and of the keys that no row has."""
    data, sizes = fetched_rows(table.oid, len(table.columns), chunk.lines)
    if not chunk.gone:
        return data, sizes
    places = [shape.index_of[name] for name in table.key]
    if not set(places).issuperset(shape.identity_indexes):
        raise SourceRefused(
            f"rows of {table.full_name} are not told apart by {', '.join(table.key)}", remedy="Give it a primary key."
        )
    gone, gone_sizes = gone_rows(table.oid, len(table.columns), places, chunk.gone)
    return gone + data, [*gone_sizes, *sizes]


def _end_of(table: ReadTable, chunk: ReadChunk) -> tuple[str, ...]:
    """Return where the next chunk begins."""
    if chunk.page is not None:
        return chunk.page
    if chunk.bound is not None:
        return key_texts(chunk.bound)
    return key_texts(chunk.lines[-1], table.key_places)
