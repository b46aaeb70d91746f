"""
Compares the watched tables with how they were known, tells of each difference, and publishes what was made again.

How they were known is kept with the journal, so what was done while nobody watched is found at the next start. The
usual look only compares a fingerprint, which comes with the look at everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import structlog

from backend_watcher.capture.prepare import LogicalSettings
from backend_watcher.capture.schema import Known, Noticed, differences, gap_noticed
from backend_watcher.capture.schema_notes import add_changes
from backend_watcher.contracts import Journal, Observer
from backend_watcher.errors import PreflightFailed, SourceRefused, SourceUnavailable
from backend_watcher.events.table import qualify
from backend_watcher.postgres import catalog, publications, shapes
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.names import format_name, parse_name, quote
from backend_watcher.postgres.surroundings import Surroundings

log = structlog.get_logger("watcher")

SHAPES = "shapes"
"""The note that says how the watched tables looked when they were last compared."""

FINGERPRINT_SHARE_MAX = 0.02
"""How much of the time a session of the source may spend on fingerprints: with thousands of tables they are rarer."""

FINGERPRINT_SECONDS_MAX = 40.0
"""But never rarer than this: with the time between two looks, what is done to a table is told within a minute."""

_NEED_IDENTITY = frozenset({"update", "delete"})


class SchemaWatch:
    """Knows the watched tables. `look` is called after each look at what is around the stream."""

    def __init__(self, settings: LogicalSettings, observer: Observer, connection: Connection, journal: Journal) -> None:
        self._settings = settings
        self._observer = observer
        self._connection = connection
        self._journal = journal
        self._known: Known | None = None
        self._read = False
        self._due = 0.0
        self._refused: set[tuple[str, str]] = set()
        self.names = list(dict.fromkeys(parse_name(table) for table in settings.tables))

    @property
    def full_names(self) -> list[str]:
        """The watched tables, named as their changes are."""
        return [qualify(*pair) for pair in self.names]

    async def oids(self) -> list[int]:
        """Return the OIDs that the tables are known by: so one is found that has another name now."""
        if not self._read:
            self._known = Known.from_note(await self._journal.get_note(SHAPES))
            self._read = True
        return sorted(self._known.tables.values()) if self._known is not None else []

    def is_due(self, now: float) -> bool:
        """Say whether the next look is to bring a fingerprint. Monotonic seconds."""
        return now >= self._due

    def hurry(self) -> None:
        """Compare at the next look, whatever it costs."""
        self._due = 0.0

    def took(self, begun: float, ended: float, seen: Surroundings) -> None:
        """Note how long a look took."""
        if seen.fingerprint:
            self._due = ended + min((ended - begun) / FINGERPRINT_SHARE_MAX, FINGERPRINT_SECONDS_MAX)

    async def look(self, seen: Surroundings) -> None:
        """Compare, and tell. What was told is written down before it counts as known."""
        known = self._known
        if seen.publication is None or not seen.fingerprint:
            return
        sent = await self._sent()
        all_sent = [qualify(*pair) for pair in sent]
        names = list(dict.fromkeys([*self.full_names, *all_sent]))
        if known is not None and known.fingerprint == seen.fingerprint and known.tables.keys() >= set(all_sent):
            return
        # The fingerprint is older than what is looked at now: what changes in between is looked at once more.
        now = await shapes.look(
            self._connection,
            self._settings.publication,
            [*self.names, *sent],
            await self.oids(),
            known=known.shapes.relations if known is not None else (),
            needs_identity=not _NEED_IDENTITY.isdisjoint(seen.publication.operations),
        )
        if known is None:
            self._known = Known.first(seen.fingerprint, now, names)
        else:
            await self.tell(differences(known, now, dict.fromkeys([*names, *known.tables])))
            self._known = known.followed(seen.fingerprint, now, names)
        self._known = replace(self._known, all_sent=self._settings.schema_changes == "published")
        await self._journal.set_note(SHAPES, self._known.to_note())

    async def _sent(self) -> list[tuple[str, str]]:
        """Return every table that is sent, where that is wished for."""
        if self._settings.schema_changes == "watched":
            return []
        return await shapes.sent(self._connection, self._settings.publication)

    async def tell(self, noticed: Sequence[Noticed], *, once: bool = False) -> None:
        """Write it down, then say it; with `once`, not what stands open already."""
        if noticed:
            for change in await add_changes(self._journal, noticed, once=once):
                self._observer.schema_changed(change)

    async def tell_of_gaps(self, lines: Sequence[str]) -> None:
        """Write down what makes the publication one that may have left out rows; the caller stops then."""
        await self.tell([gap_noticed(self._settings.publication, line) for line in lines], once=True)

    async def publish(self, names: Sequence[str]) -> None:
        """
        Publish tables that were made again under a watched name, each by the rule for every table.

        One that may not be published, because its updates would fail or it is somebody else's, is told of once; the
        others go on.
        """
        wished = {format_name(*pair): pair for pair in self.names if qualify(*pair) in names}
        found = await catalog.find_tables(self._connection, wished)
        for table in found.tables.values():
            try:
                await publications.align(self._connection, self._settings.publication, [table])
            except SourceUnavailable as busy:
                if self._connection.closed:
                    raise
                # Somebody holds a lock on it: the next look tries again.
                log.warning("table is not published yet", table=table.full_name, reason=busy.message)
                continue
            except (PreflightFailed, SourceRefused) as error:
                if (table.full_name, error.message) not in self._refused:
                    self._refused.add((table.full_name, error.message))
                    await self.tell([self._unpublished(table, error.message)], once=True)
                continue
            log.info("table is published again", table=table.full_name, publication=self._settings.publication)

    def _unpublished(self, table: catalog.TableFacts, message: str) -> Noticed:
        statement = f"ALTER PUBLICATION {quote(self._settings.publication)} ADD TABLE {table.quoted};"
        why = message.partition(". Mend it with: ")[0]
        remedy = message.partition(". Mend it with: ")[2] or f"{statement} -- as its owner"
        what = f"(OID {table.oid}) is not published: {why}"
        reason = "none of its changes is sent until it is"
        return Noticed("not_published", table.full_name, what, True, reason, f"{remedy} Then read its rows again.")
