"""
The logical replication source: one slot, read in commit order, appended to the journal, confirmed from it.

A session is prepared (`prepare.py`), streamed, and begun again with backoff when the connection breaks. Five
tasks run side by side so that none can hold up another: reading, feedback, heartbeat, leaving with the server,
and a slow look at what could go wrong around us.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Mapping
from dataclasses import replace

from backend_watcher import probes
from backend_watcher.capture import undecodable
from backend_watcher.capture.acknowledge import Acknowledgement
from backend_watcher.capture.backfill import Backfills
from backend_watcher.capture.beat import Beat
from backend_watcher.capture.intake import Describer, Intake
from backend_watcher.capture.placing import Placements
from backend_watcher.capture.prepare import LogicalSettings, Prepared, prepare
from backend_watcher.capture.sessions import keep_on
from backend_watcher.capture.spill import Spill
from backend_watcher.capture.together import run_together
from backend_watcher.capture.undecodable import Undecodable
from backend_watcher.capture.watch import WATCH_SECONDS, SourceWatch, slot_error
from backend_watcher.contracts import Journal, Observer
from backend_watcher.errors import SourceRefused, SourceUnavailable, SpillFull, UndecodableChange, WatcherError
from backend_watcher.events.position import Position
from backend_watcher.postgres import slots
from backend_watcher.postgres.connect import Connection, connect, refuses_sessions
from backend_watcher.postgres.refusal import SHUTDOWN_SECONDS
from backend_watcher.postgres.replication import ReplicationStream
from backend_watcher.postgres.upkeep import check_alive, emit_heartbeat
from backend_watcher.threads import set_threadsafe

RECEIVE_BYTES = 256 * 1024
"""How much is taken from the socket at a time; about the size of a journal block under load."""
PACES = ((16, 0.004), (6, 0.001))
"""
Where more than so many messages came at once, the socket is left alone for so many seconds: a hundred messages
cost as much to wake for as one, so blocks get fuller, fsyncs fewer, and PostgreSQL has more of the CPU.
"""
FEEDBACK_GAP_SECONDS = 0.1
ALIVE_SECONDS = 1.0
CONTROL_SECONDS_MAX = 15.0
"""
For any answer beside a running stream. Somebody asks at least each WATCH_SECONDS, so a network that brings nothing
any more is noticed in less than 30 s, whoever asked.
"""
PING_EACH = 4
"""One in so many looks whether the server lives also asks whether it still takes sessions."""


class LogicalSource:
    """Reads one slot until cancelled. `run` is to be called in an event loop that no handler can block."""

    def __init__(
        self,
        settings: LogicalSettings,
        journal: Journal,
        observer: Observer,
        *,
        watch_seconds: float = WATCH_SECONDS,
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._observer = observer
        self._watch_seconds = watch_seconds
        self._progress = asyncio.Event()
        folder = settings.spill_folder
        self._spill = Spill(folder, settings.max_spill_bytes) if folder is not None else None
        self._streaming = folder is not None
        self._walsender: int | None = None

    async def run(self) -> None:
        """Stream, and begin again when the connection breaks. Raises a WatcherError that needs a person."""
        loop = asyncio.get_running_loop()
        unlisten = self._journal.listen(lambda: set_threadsafe(loop, self._progress))
        try:
            await keep_on(self._session, self._journal, self._rest)
        finally:
            unlisten()
            if self._spill is not None:
                self._spill.clear()

    async def _rest(self, error: WatcherError, delay: float) -> None:
        """Tell why a session ended, change what the next one would fail at too, and wait."""
        stuck = None
        if isinstance(error, SpillFull):
            # From here on such a transaction stays with the server until its commit.
            self._streaming = False
        if isinstance(error, UndecodableChange):
            stuck = Undecodable.of(error)
            # A transaction that comes whole says where it commits.
            self._streaming = self._streaming and stuck.commit_lsn is not None
            await self._journal.set_note(undecodable.NOTE, stuck.to_note())
            self._observer.source_state(undecodable.STATE, stuck.words(delay))
        else:
            self._observer.source_state("waiting", f"{error.message}; again in {delay:.1f} s")
        await self._wait(delay, stuck)

    async def _wait(self, seconds: float, stuck: Undecodable | None) -> None:
        """Wait, but no longer than until somebody skips what the source is stuck at."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while stuck is None or stuck.commit_lsn is None or self._journal.durable_lsn <= stuck.commit_lsn:
                    self._progress.clear()
                    await self._progress.wait()

    async def _session(self) -> None:
        """One connection's life: prepare, stream until something ends it."""
        if self._spill is not None:
            # Whatever was in progress is sent again from its beginning.
            self._spill.clear()
        self._observer.source_state("connecting", "")
        stream = ReplicationStream(self._settings.dsn)
        connection: Connection | None = None
        try:
            connection = await connect(self._settings.dsn, purpose="control")
            prepared = await prepare(connection, stream, self._settings, self._journal, self._observer.source_state)
            # As long as the process lives: what is queued is numbered this way.
            self._settings = replace(self._settings, messages=prepared.messages)
            await self._start(stream, connection, prepared)
            self._observer.source_state("streaming", "")
            connection.answer_seconds_max = CONTROL_SECONDS_MAX
            await self._stream(stream, connection, prepared)
        finally:
            await stream.close()
            if connection is not None:
                await connection.close()

    async def _start(self, stream: ReplicationStream, connection: Connection, prepared: Prepared) -> None:
        try:
            await stream.start(
                self._settings.slot,
                prepared.start_lsn,
                self._settings.publication,
                streaming=self._streaming and not prepared.messages,
            )
        except SourceRefused:
            # In words that differ from version to version; the slot itself says it in one way.
            lost = await slot_error(connection, self._settings.slot)
            if lost is not None:
                raise lost from None
            raise
        except SourceUnavailable:
            if self._walsender is not None:
                # After a break that the server has not noticed, our own session before this one has the slot.
                await slots.end_reader(connection, self._settings.slot, self._walsender)
            raise
        self._walsender = stream.backend_pid

    async def _stream(self, stream: ReplicationStream, connection: Connection, prepared: Prepared) -> None:
        acknowledgement = Acknowledgement(prepared.start_lsn)
        describer = Describer(connection, prepared.keys)
        beat = Beat(self._settings.heartbeat_seconds, time.monotonic())
        watch = SourceWatch(self._settings, self._observer, stream, connection, self._journal, prepared.coverage, beat)
        intake = Intake(
            self._journal,
            self._observer,
            acknowledgement,
            describer,
            self._spill,
            prepared.start_lsn,
            messages=prepared.messages,
            ddl=watch.look_now,
            # Reported at once, and with that written down.
            marked=self._progress.set,
            placements=(placements := Placements()),
        )
        backfills = Backfills(self._settings.dsn, self._settings.publication, self._journal, placements)
        await run_together(
            self._read(stream, intake),
            self._feedback(stream, acknowledgement, prepared.feedback_seconds),
            self._heartbeat(connection, beat),
            self._leave_with(connection),
            watch.run(self._watch_seconds),
            backfills.run(describer),
        )

    async def _read(self, stream: ReplicationStream, intake: Intake) -> None:
        """Take what arrives, and append it to the journal."""
        # What an earlier connection queued comes first; what it had not is sent again.
        await self._journal.flush()
        intake.begin()
        last, pace = 0.0, 0.0
        while True:
            pause = pace - (time.monotonic() - last)
            if pause > 0 and not stream.has_more:
                await asyncio.sleep(pause)
            await stream.wait()
            last = time.monotonic()
            try:
                received = stream.receive(RECEIVE_BYTES)
            except UndecodableChange as error:
                error.commit_lsn = intake.open_commit_lsn
                raise
            pace = next((seconds for messages, seconds in PACES if len(received.sizes) > messages), 0.0)
            probes.reach("capture.received")
            await intake.take(received)
            if received.reply_requested:
                await self._report(stream, intake.acknowledgement)
            if received.ended:
                raise SourceUnavailable("the server ended the stream")

    async def _feedback(self, stream: ReplicationStream, acknowledgement: Acknowledgement, seconds: float) -> None:
        """Report on a timer, and when the journal has made more durable; never waits for anything else."""
        while True:
            self._progress.clear()
            await self._report(stream, acknowledgement)
            await asyncio.sleep(FEEDBACK_GAP_SECONDS)
            try:
                async with asyncio.timeout(seconds):
                    await self._progress.wait()
            except TimeoutError:
                continue

    async def _report(self, stream: ReplicationStream, acknowledgement: Acknowledgement) -> None:
        """Tell the server what was received, what is durable, and how far the slowest subscription is."""
        durable = self._journal.durable_lsn
        acknowledgement.durable(durable)
        if acknowledgement.idle and acknowledgement.safe_lsn > durable:
            # Written down before it is confirmed: the journal must never be behind the slot.
            probes.reach("capture.before_advance")
            await self._journal.advance(acknowledgement.safe_lsn)
        cursors = await self._journal.cursors()
        # From here on nothing waits: an older answer must not overtake a newer one.
        flush = min(acknowledgement.safe_lsn, self._journal.durable_lsn)
        probes.reach("capture.before_feedback")
        stream.confirm(max(flush, acknowledgement.received_lsn), flush, self._apply_lsn(flush, cursors))
        probes.reach("capture.after_feedback")

    def _apply_lsn(self, flush_lsn: int, cursors: Mapping[str, Position]) -> int:
        last = self._journal.last_position
        return min([flush_lsn, *(cursor.commit_lsn for cursor in cursors.values() if cursor < last)])

    async def _heartbeat(self, connection: Connection, beat: Beat) -> None:
        """Move an idle database's slot past what others write to the cluster."""
        while True:
            await asyncio.sleep(beat.wait_seconds(time.monotonic()))
            # Meanwhile one may have gone along with a look.
            if beat.wait_seconds(now := time.monotonic()) == 0.0:
                beat.sent(now)
                await emit_heartbeat(connection)

    async def _leave_with(self, connection: Connection) -> None:
        """End the stream when the server ends its sessions: a fast shutdown must not wait for the journal."""
        for number in itertools.count(1):
            await asyncio.sleep(ALIVE_SECONDS)
            await check_alive(connection)
            if number % PING_EACH == 0 and await refuses_sessions(self._settings.dsn):
                error = SourceUnavailable("PostgreSQL takes no sessions any more: it shuts down")
                error.after_seconds = SHUTDOWN_SECONDS
                raise error
