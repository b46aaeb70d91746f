"""
A look, now and then, at what could go wrong around a running stream, and would not be said in it.

The slot given up or read by another; the publication changed, so that rows vanish without a word; PostgreSQL
waiting for us with every commit; WAL piling up because of us. One small query each time, and one at once when the
server sends a notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from backend_watcher.capture.beat import Beat
from backend_watcher.capture.budget import WalLevel, judge_wal
from backend_watcher.capture.drift import Coverage, gaps
from backend_watcher.capture.left_open import judge_prepared
from backend_watcher.capture.prepare import PUBLISHED, LogicalSettings, raise_gaps, refuse_synchronous
from backend_watcher.capture.schema_watch import SchemaWatch
from backend_watcher.contracts import Journal, Observer
from backend_watcher.errors import BecameSynchronous, SlotLost, SourceUnavailable
from backend_watcher.postgres import slots, surroundings
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.replication import ReplicationStream
from backend_watcher.postgres.slots import SlotFacts
from backend_watcher.postgres.surroundings import Surroundings
from backend_watcher.postgres.upkeep import HEARTBEAT_PREFIX

WATCH_SECONDS = 9.0
"""Whatever makes rows vanish is noticed within ten seconds, at a tenth of a query a second."""

_STATES = {WalLevel.WARNING: "wal_warning", WalLevel.ALARM: "wal_alarm"}
_SYNCHRONOUS = frozenset({"sync", "quorum", "potential"})


class SourceWatch:
    """Watches around one stream. `run` ends only by raising."""

    def __init__(
        self,
        settings: LogicalSettings,
        observer: Observer,
        stream: ReplicationStream,
        connection: Connection,
        journal: Journal,
        coverage: Coverage,
        beat: Beat,
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._observer = observer
        self._stream = stream
        self._connection = connection
        self._coverage = coverage
        self._beat = beat
        self._schema = SchemaWatch(settings, observer, connection, journal)
        self._told = "streaming "
        self._noticed = asyncio.Event()

    def look_now(self) -> None:
        """Look at once: something was done to a table, or may have been. To be called in the loop of `run`."""
        self._schema.hurry()
        self._noticed.set()

    async def run(self, seconds: float) -> None:
        """Look at once, then each so many seconds, and when the server notices something."""
        self._stream.listen(self._noticed.set)
        while True:
            self._noticed.clear()
            seen = await self._look()
            await self._judge(seen)
            await self._schema.look(seen)
            await self._follow(seen)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._noticed.wait()

    async def _look(self) -> Surroundings:
        begun = time.monotonic()
        beats = self._beat.may_go_along(begun)
        seen = await surroundings.look(
            self._connection,
            slot=self._settings.slot,
            pid=self._stream.backend_pid,
            publication=self._settings.publication,
            names=self._schema.names,
            oids=sorted({*self._coverage.oids, *await self._schema.oids()}),
            fingerprint=self._schema.is_due(begun),
            heartbeat=HEARTBEAT_PREFIX if beats else None,
        )
        if beats:
            self._beat.sent(begun)
        self._schema.took(begun, time.monotonic(), seen)
        return seen

    async def _judge(self, seen: Surroundings) -> None:
        if seen.sync_state in _SYNCHRONOUS:
            raise BecameSynchronous(f"PostgreSQL made this walsender {seen.sync_state}")
        if seen.sync_state is None:
            # Our role may not see it; the setting says whether it could be.
            refuse_synchronous(seen.synchronous_standby_names)
        lines = gaps(self._coverage, seen.publication, seen.tables)
        await self._schema.tell_of_gaps(lines)
        raise_gaps(self._settings.publication, lines)
        lost = _lost(self._settings.slot, seen.slot)
        if lost is not None:
            raise lost
        assert seen.slot is not None
        if seen.slot.active_pid != self._stream.backend_pid:
            raise SourceUnavailable("the server does not serve the slot to us any more")
        self._tell(seen.slot, judge_prepared(seen.prepared, self._settings.prepared_seconds_max))

    async def _follow(self, seen: Surroundings) -> None:
        """Compare with this the next time, and after a restart."""
        assert seen.publication is not None
        coverage = self._coverage.followed(seen.publication, seen.tables, self._schema.full_names)
        if coverage != self._coverage:
            self._coverage = coverage
            await self._journal.set_note(PUBLISHED, coverage.to_note())
        if unpublished := coverage.unpublished():
            await self._schema.publish(unpublished)

    def _tell(self, slot: SlotFacts, prepared: str) -> None:
        """Tell what is wrong when that changes, the worst of it. Nothing is let go because of it."""
        verdict = judge_wal(
            slot.wal_held_bytes, self._settings.max_wal_bytes, slot.wal_status, slot.safe_wal_size_bytes
        )
        self._observer.slot_held(slot.wal_held_bytes or 0, slot.safe_wal_size_bytes)
        state, words = _STATES.get(verdict.level, "streaming"), verdict.words
        if prepared and verdict.level < WalLevel.ALARM:
            state, words = "prepared_open", prepared
        # How much WAL is held is another figure each time; which transaction it is, is not.
        told = f"{state} {prepared}"
        if told != self._told:
            self._told = told
            self._observer.source_state(state, words)


async def slot_error(connection: Connection, name: str) -> SlotLost | None:
    """Look whether a slot that PostgreSQL refuses to read is gone or given up."""
    return _lost(name, await slots.look(connection, name))


def _lost(name: str, slot: SlotFacts | None) -> SlotLost | None:
    if slot is None:
        return SlotLost(f"replication slot {name!r} was dropped")
    if slot.is_lost:
        return SlotLost(f"PostgreSQL gave up slot {name!r}: {slot.invalidation_reason or slot.wal_status}")
    return None
