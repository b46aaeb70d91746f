"""
Looks again at entries that seemed wrong when they were read back, and raises an alarm for those that stay so.

The looks are those of `watcher verify`: only what differs although nothing touched it meanwhile is an alarm, and it is
over when a later look finds it equal. Alarms are kept in a note of the journal, so a restart does not end them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from backend_watcher.contracts import Journal
from backend_watcher.errors import ConfigError, SourceRefused, in_one_line
from backend_watcher.reconcile.alarm import Alarms, Doubt, doubt_of, dump, load, note_name
from backend_watcher.reconcile.compare import Difference, Kind
from backend_watcher.reconcile.follow import Follower, JournalFile
from backend_watcher.reconcile.looks import Looks
from backend_watcher.reconcile.sampling import Sample
from backend_watcher.reconcile.source import Source
from backend_watcher.service.config import SourceConfig
from backend_watcher.service.readable import Readable
from backend_watcher.service.sources import reading_source
from backend_watcher.verifiable import ProofObserver

log = structlog.get_logger("watcher")

LOOK_SECONDS = 10.0
"""How often is looked again, while there is anything to look at."""

STALL_SECONDS_MAX = 10.0
"""How long a look waits for a subscription that does not move; it is paused then, or its sink is away."""

JOURNAL_BYTES_MAX = 32 << 20
"""How far back the journal is asked who had an entry since; beyond it, one without a row is not called drift."""


class DriftWatch:
    """The alarms of one subscription."""

    def __init__(
        self,
        readable: Readable,
        source: SourceConfig,
        view: JournalFile,
        journal: Journal,
        observer: ProofObserver,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._readable = readable
        self._config = source
        self._follower = Follower(view, readable.name, STALL_SECONDS_MAX)
        self._journal = journal
        self._observer = observer
        self._wall = wall
        self._written: str | None = None
        self.alarms = Alarms()

    async def load(self) -> None:
        """Go on with the alarms of the last process."""
        self._written = await self._journal.get_note(note_name(self._readable.name))
        self.alarms = load(self._written)

    async def look(self, samples: Sequence[Sample]) -> None:
        """Look at these, and at what is alarmed. Raises a WatcherError where one side does not answer."""
        doubts = {(one.doubt.table, one.doubt.name): one.doubt for one in self.alarms.kept}
        doubts |= {(one.table, one.name): one for one in map(doubt_of, samples)}
        tables: dict[str, list[Doubt]] = {}
        for one in doubts.values():
            tables.setdefault(one.table, []).append(one)
        if not tables:
            return
        source, sink = reading_source(self._config), self._readable.reader()
        looks = self._readable.looks(source, sink, self._follower)
        try:
            await sink.open_to_read()
            for table, several in tables.items():
                try:
                    await self._table(source, looks, table, several)
                except (ConfigError, SourceRefused) as error:
                    # It cannot be looked at any more: nobody would ever end these alarms.
                    log.warning("entries cannot be looked at again", table=table, error=in_one_line(error))
                    for one in several:
                        self.alarms.is_equal(table, one.name)
        finally:
            await source.close()
            await sink.close()
            await self._keep()

    async def _table(self, source: Source, looks: Looks, table: str, doubts: Sequence[Doubt]) -> None:
        key = (await source.table(table)).read.key
        by_name = {one.name: one for one in doubts}
        suspects = [suspect for one in doubts if (suspect := one.suspect(key)) is not None]
        for name in by_name.keys() - {suspect.name for suspect in suspects}:
            self.alarms.is_equal(table, name)
        if not suspects:
            return
        now_lsn = await source.mark()
        found, end_lsn = await looks.look_at(table, suspects, now_lsn)
        # Another row may have such a name by now; only the journal, from when ours had it, says which.
        extra = [one for one in suspects if (seen := found.get(one.name)) and seen.kind is Kind.EXTRA]
        for one in extra:
            del found[one.name]
        self._note(by_name, found, end_lsn)
        since_lsn = min((by_name[one.name].since_lsn for one in extra), default=now_lsn)
        if extra and self._is_near(since_lsn, now_lsn):
            self._note(by_name, *await looks.look_at(table, extra, since_lsn))

    def _is_near(self, since_lsn: int, now_lsn: int) -> bool:
        """Say whether the journal has all since then, and not so much that reading it would be felt."""
        oldest = self._follower.oldest()
        return oldest is not None and oldest.commit_lsn <= since_lsn and now_lsn - since_lsn <= JOURNAL_BYTES_MAX

    def _note(self, doubts: Mapping[bytes, Doubt], found: Mapping[bytes, Difference | None], end_lsn: int) -> None:
        """Raise or end the alarms of entries by what was found."""
        subscription = self._readable.name
        for name, difference in found.items():
            doubt = doubts[name]
            if difference is None:
                over = self.alarms.is_equal(doubt.table, name)
                if over is not None:
                    self._observer.drift(subscription, doubt.table, over.kind, persists=False)
                continue
            doubt.since_lsn = end_lsn
            if self.alarms.differs(doubt, str(difference.kind), self._wall()):
                self._observer.drift(subscription, doubt.table, str(difference.kind), persists=True)

    async def _keep(self) -> None:
        text = dump(self.alarms)
        if text != self._written:
            await self._journal.set_note(note_name(self._readable.name), text)
            self._written = text
