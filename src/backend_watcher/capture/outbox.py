"""
The outbox source: what triggers wrote in the application's transactions, read in commit-safe order into the journal.

For servers whose `wal_level` cannot be changed. Each batch is a snapshot that is written down on the source before it
is read (`visible.py`), so that every change has one position for ever. Rows become the messages that logical decoding
would have sent, and go the way of those (`intake.py`). A notification only wakes; what is missed is found by a slow
look. The outbox is told what is durable in the journal, and only then are its parts emptied.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from backend_watcher import probes
from backend_watcher.capture.acknowledge import Acknowledgement
from backend_watcher.capture.backfill import Backfills
from backend_watcher.capture.intake import Describer, Intake
from backend_watcher.capture.outbox_cover import gaps
from backend_watcher.capture.outbox_messages import Messages
from backend_watcher.capture.outbox_prepare import OutboxSettings, Prepared, cover, prepare, raise_gaps
from backend_watcher.capture.outbox_start import check_end
from backend_watcher.capture.outbox_wake import QueueAlarm, Waker
from backend_watcher.capture.placing import Placements
from backend_watcher.capture.sessions import keep_on
from backend_watcher.capture.together import run_together
from backend_watcher.capture.visible import Batch, Snapshot, Written, end_lsn, placed
from backend_watcher.contracts import Journal, Observer
from backend_watcher.decode.pgoutput import Relation
from backend_watcher.decode.whole import begin_message, commit_message
from backend_watcher.errors import WatcherError
from backend_watcher.events.table import Table
from backend_watcher.postgres import outbox
from backend_watcher.postgres.connect import Connection, connect
from backend_watcher.postgres.outbox import Begun, OutboxRow
from backend_watcher.postgres.poolers import refuse_pooler
from backend_watcher.postgres.replication import Received
from backend_watcher.postgres.upkeep import check_alive
from backend_watcher.threads import set_threadsafe

GROUP_ROWS = 2000
GROUP_BYTES = 1 << 20
"""How much of a batch is asked for at a time; a row alone may be larger."""
PIECE_BYTES = 256 * 1024
PACE_SECONDS = 0.02
"""Between the beginnings of two batches: each is one small commit on the source."""
DONE_SECONDS = 1.0
"""Between two words about what is durable."""
EMPTY_SECONDS = 5.0
QUIET_SECONDS = 60.0
"""After so long without a change also the part that is written now is emptied."""
WATCH_SECONDS = 11.0
"""One small query each time; with that of the reader less than 0.2 in a second where nothing happens."""
ALIVE_SECONDS = 1.0


class OutboxSource:
    """Reads one outbox until cancelled. `run` is to be called in an event loop that no handler can block."""

    def __init__(
        self,
        settings: OutboxSettings,
        journal: Journal,
        observer: Observer,
        *,
        watch_seconds: float = WATCH_SECONDS,
        quiet_seconds: float = QUIET_SECONDS,
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._observer = observer
        self._watch_seconds = watch_seconds
        self._quiet_seconds = quiet_seconds
        self._progress = asyncio.Event()

    async def run(self) -> None:
        """Read, and begin again when the connection breaks. Raises a WatcherError that needs a person."""
        loop = asyncio.get_running_loop()
        unlisten = self._journal.listen(lambda: set_threadsafe(loop, self._progress))
        try:
            await keep_on(self._session, self._journal, self._rest)
        finally:
            unlisten()

    async def _rest(self, error: WatcherError, delay: float) -> None:
        self._observer.source_state("waiting", f"{error.message}; again in {delay:.1f} s")
        await asyncio.sleep(delay)

    async def _session(self) -> None:
        """One connection's life: prepare, read until something ends it."""
        self._observer.source_state("connecting", "")
        reading = await connect(self._settings.dsn, purpose="outbox", any_text=True)
        control: Connection | None = None
        try:
            await refuse_pooler(reading, self._settings.dsn)
            prepared = await prepare(reading, self._settings, self._journal)
            control = await connect(self._settings.dsn, purpose="control")
            for connection in (reading, control):
                await outbox.make_ready(connection)
            session = _Session(
                self._settings, self._journal, self._observer, reading, control, prepared, self._progress.set
            )
            await run_together(
                session.read(),
                session.tell(self._progress, self._quiet_seconds),
                session.watch(self._watch_seconds),
                session.leave_with_server(),
                session.backfill(),
            )
        finally:
            await reading.close()
            if control is not None:
                await control.close()


class _Session:
    """
    One session. `reading` is for the reader alone, `control` for everything else.

    `_fed` holds the batches that are fed and not durable yet: number, snapshot, end.
    """

    def __init__(
        self,
        settings: OutboxSettings,
        journal: Journal,
        observer: Observer,
        reading: Connection,
        control: Connection,
        prepared: Prepared,
        marked: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._observer = observer
        self._reading = reading
        self._control = control
        self._controlling = asyncio.Lock()
        self._prepared = prepared
        self._acknowledgement = Acknowledgement(prepared.end_lsn)
        describer = _Describer(control, prepared.keys, self._controlling, fixed=settings.event_table is not None)
        self._describer = describer
        self._placements = Placements()
        self._intake = Intake(
            journal,
            observer,
            self._acknowledgement,
            describer,
            None,
            prepared.end_lsn,
            messages=True,
            # Written down at once: somebody waits until the journal has come there.
            marked=marked,
            placements=self._placements,
        )
        self._messages = Messages(reading)
        self._number = prepared.batch
        self._snapshot = prepared.snapshot
        self._end_lsn = prepared.end_lsn
        self._fed: deque[tuple[int, Snapshot, int]] = deque()
        self._newest = time.monotonic()
        self._queue = QueueAlarm(observer)

    async def read(self) -> None:
        """First the batches that an earlier session had begun; then new ones, for ever."""
        await self._journal.flush()
        self._intake.begin()
        for begun in self._prepared.begun:
            await self._take(begun)
        if not self._settings.adopt_slot:
            check_end(self._journal.last_position, self._end_lsn)
        waker = Waker(self._reading, notify=self._settings.notify, poll_seconds=self._settings.poll_seconds)
        await waker.listen()
        self._observer.source_state("streaming", "")
        while True:
            claimed = time.monotonic()
            begun_now = await outbox.claim(
                self._reading,
                self._prepared.mark,
                self._number + 1,
                self._snapshot.xmax,
                self._snapshot.running,
                max(self._end_lsn, self._journal.durable_lsn),
            )
            if begun_now is None:
                await waker.wait()
                continue
            probes.reach("outbox.claimed")
            await waker.heard()
            await self._take(begun_now)
            await asyncio.sleep(max(0.0, PACE_SECONDS - (time.monotonic() - claimed)))

    async def _take(self, begun: Begun) -> None:
        """Read a batch, and append it to the journal."""
        self._newest = time.monotonic()
        batch = Batch(begun.number, self._snapshot, Snapshot.parse(begun.snapshot), begun.start_lsn)
        before = batch.before
        count = 0
        pages = outbox.transactions(self._reading, before.xmax, before.running, begun.snapshot)
        async for page in pages:
            later = Batch(batch.number, before, batch.snapshot, batch.start_lsn + count)
            for group in _groups(list(placed(later, (Written(*one) for one in page)))):
                await self._take_group(group)
            count += len(page)
        self._number, self._snapshot, self._end_lsn = batch.number, batch.snapshot, end_lsn(batch, count)
        self._fed.append((self._number, self._snapshot, self._end_lsn))

    async def _take_group(self, group: Sequence[tuple[int, Written]]) -> None:
        """Read some transactions, or one large one in pages."""
        stored = self._journal.last_position.commit_lsn
        group = [(lsn, one) for lsn, one in group if lsn >= stored]
        if not group:
            return
        if len(group) == 1 and (group[0][1].rows > GROUP_ROWS or group[0][1].size_bytes > GROUP_BYTES):
            await self._take_large(*group[0])
            return
        rows: dict[int, list[OutboxRow]] = {one.xid: [] for _, one in group}
        for row in await outbox.rows(self._reading, list(rows)):
            rows[row.xid].append(row)
        received = Received()
        parts: list[bytes] = []
        for lsn, one in group:
            messages = [begin_message(lsn, one.micros, one.xid & 0xFFFFFFFF)]
            messages += await self._messages.of(rows[one.xid])
            messages.append(commit_message(0, lsn, lsn + 1, one.micros))
            parts += messages
            received.sizes += map(len, messages)
        received.data = b"".join(parts)
        await self._feed(received)

    async def _take_large(self, lsn: int, one: Written) -> None:
        """Read one transaction in pages; only one of them is in memory."""
        page = max(1, min(GROUP_ROWS, GROUP_BYTES * one.rows // max(1, one.size_bytes)))
        messages = [begin_message(lsn, one.micros, one.xid & 0xFFFFFFFF)]
        after = -1
        while rows := await outbox.rows(self._reading, [one.xid], after=after, limit=page):
            messages += await self._messages.of(rows)
            await self._feed(Received(b"".join(messages), [len(message) for message in messages]))
            probes.reach("outbox.piece")
            messages = []
            after = rows[-1].number
        messages.append(commit_message(0, lsn, lsn + 1, one.micros))
        await self._feed(Received(b"".join(messages), [len(message) for message in messages]))

    async def _feed(self, received: Received) -> None:
        probes.reach("capture.received")
        await self._intake.take(received)

    async def tell(self, progress: asyncio.Event, quiet_seconds: float) -> None:
        """Tell the source what is durable here, and empty what is not needed any more."""
        emptied, left = 0.0, True
        while True:
            progress.clear()
            done = await self._durable()
            if done is not None:
                number, snapshot, lsn = done
                probes.reach("outbox.before_done")
                async with self._controlling:
                    await outbox.done(self._control, self._prepared.mark, number, str(snapshot), lsn)
                probes.reach("outbox.after_done")
            now = time.monotonic()
            quiet = now - self._newest >= quiet_seconds and not self._fed
            left = left or done is not None
            if left and now - emptied >= (quiet_seconds if quiet else EMPTY_SECONDS):
                emptied = now
                left = not await self._empty(every=quiet)
            await asyncio.sleep(DONE_SECONDS)
            try:
                async with asyncio.timeout(min(EMPTY_SECONDS, quiet_seconds)):
                    await progress.wait()
            except TimeoutError:
                continue

    async def _durable(self) -> tuple[int, Snapshot, int] | None:
        """Return the newest batch that is durable here as a whole, if there is one since the last call."""
        durable = self._journal.durable_lsn
        self._acknowledgement.durable(durable)
        if self._acknowledgement.idle and self._fed and self._acknowledgement.safe_lsn > durable:
            await self._journal.advance(self._acknowledgement.safe_lsn)
        found = None
        while self._fed and self._fed[0][2] <= self._journal.durable_lsn:
            found = self._fed.popleft()
        return found

    async def _empty(self, *, every: bool) -> bool:
        """Empty what may be, the part that is written now only with `every`; say whether nothing is left."""
        left = 0
        async with self._controlling:
            for part in await outbox.parts(self._control):
                if (every or not part.written) and await outbox.empty(self._control, part.part):
                    probes.reach("outbox.emptied")
                else:
                    left += 1
        return left == 0

    async def watch(self, seconds: float) -> None:
        """Look now and then whether every trigger is still there. Ends only by raising."""
        covered = self._prepared.covered
        while True:
            await asyncio.sleep(seconds)
            async with self._controlling:
                now, usage = await cover(self._control, self._settings)
            if self._settings.notify:
                self._queue.judge(usage)
            raise_gaps(gaps(covered, now, self._settings.wanted))
            covered = {**covered, **now}

    async def backfill(self) -> None:
        """Read tables that people ask for, while the stream runs."""
        await Backfills(self._settings.dsn, None, self._journal, self._placements).run(self._describer)

    async def leave_with_server(self) -> None:
        """End the session when the server ends its sessions."""
        for _ in itertools.count():
            await asyncio.sleep(ALIVE_SECONDS)
            async with self._controlling:
                await check_alive(self._control)


class _Describer(Describer):
    """Asks on a connection that others use too. With `fixed` the keys stay as they were given."""

    def __init__(
        self, connection: Connection, keys: dict[int, tuple[str, ...]], lock: asyncio.Lock, *, fixed: bool
    ) -> None:
        super().__init__(connection, keys)
        self._given = dict(keys) if fixed else {}
        self._lock = lock

    async def table(self, relation: Relation) -> Table:
        if (key := self._given.get(relation.relation_oid)) is not None:
            self._keys[relation.relation_oid] = key
        async with self._lock:
            return await super().table(relation)


def _groups(transactions: Sequence[tuple[int, Written]]) -> Iterator[list[tuple[int, Written]]]:
    """Split into pieces that are worth a question each."""
    group: list[tuple[int, Written]] = []
    rows = size = 0
    for lsn, one in transactions:
        if group and (rows + one.rows > GROUP_ROWS or size + one.size_bytes > GROUP_BYTES):
            yield group
            group, rows, size = [], 0, 0
        group.append((lsn, one))
        rows += one.rows
        size += one.size_bytes
    if group:
        yield group
