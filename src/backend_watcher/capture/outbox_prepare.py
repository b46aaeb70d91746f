"""Before an outbox is read: what must exist is looked at, and what the journal knows is compared with what is there."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from backend_watcher import probes
from backend_watcher.capture.outbox_cover import Covered, from_note, gaps, to_note
from backend_watcher.capture.outbox_start import NAME, PUBLICATION, OutboxSeen, check_known, check_new, check_place
from backend_watcher.capture.visible import Snapshot
from backend_watcher.contracts import Identity, Journal
from backend_watcher.errors import PreflightFailed, PublicationLost, SourceRefused
from backend_watcher.events.table import qualify
from backend_watcher.postgres import catalog, outbox, outbox_install
from backend_watcher.postgres.catalog import TableFacts
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.names import parse_name
from backend_watcher.postgres.outbox import Begun
from backend_watcher.postgres.outbox_install import NOT_INSTALLED, wanted_triggers

MARK = "outbox_mark"
"""The note that says by which name the outbox knows this journal."""

COVERED = "outbox_covered"
"""The note that says how the triggers covered the watched tables when that was last looked at."""

POLL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class OutboxSettings:
    """
    Where to listen, and to which tables (`schema.table`).

    `event_table` is one of them that the application itself writes as an outbox; only its inserts are heard, and they
    are in order by their `aggregateid`. With `notify` a commit wakes the reader; without, it looks at least every
    `poll_seconds`.
    """

    dsn: str
    tables: tuple[str, ...]
    event_table: str | None = None
    notify: bool = True
    poll_seconds: float = POLL_SECONDS
    adopt_slot: bool = False
    journal_name: str = ""

    @property
    def wanted(self) -> dict[str, tuple[str, ...]]:
        """The triggers that each table needs, by the table's full name."""
        names = {qualify(*parse_name(name)): name for name in self.tables}
        return {full: wanted_triggers(inserts_only=name == self.event_table) for full, name in names.items()}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What reading begins with: up to where all is durable, and the batches that were begun since."""

    mark: str
    batch: int
    snapshot: Snapshot
    end_lsn: int
    begun: tuple[Begun, ...]
    keys: dict[int, tuple[str, ...]]
    covered: Mapping[str, Covered]


async def prepare(reading: Connection, settings: OutboxSettings, journal: Journal) -> Prepared:
    """
    Find out whether the outbox can be read on.

    Raises a SafetyStop, PreflightFailed, SourceRefused or SourceUnavailable.
    """
    server = await catalog.server(reading)
    if server.in_recovery:
        raise SourceRefused(
            "this server is a standby: nothing can be noted here", remedy="Point the DSN at the primary."
        )
    before = from_note(await journal.get_note(COVERED))
    tables = await _tables(reading, settings, before)
    await _refuse_missing(reading, journal)
    covered, _ = await cover(reading, settings)
    if not settings.adopt_slot or await journal.identity() is None:
        raise_gaps(gaps(before, covered, settings.wanted))
    await outbox.take(reading)
    mark = await _bind(reading, settings, journal, server.system_identifier, server.timeline)
    if (note := to_note(covered | {n: c for n, c in before.items() if n not in covered})) != await journal.get_note(
        COVERED
    ):
        await journal.set_note(COVERED, note)
    state = await outbox.state(reading)
    begun = tuple(await outbox.batches(reading))
    keys = {table.oid: _key(settings, table) for table in tables}
    return Prepared(mark, state.batch, Snapshot.parse(state.snapshot), state.end_lsn, begun, keys, covered)


async def _tables(conn: Connection, settings: OutboxSettings, before: Mapping[str, Covered]) -> list[TableFacts]:
    found = await catalog.find_tables(conn, settings.tables)
    if any(qualify(*parse_name(name)) not in before for name in found.missing):
        await catalog.tables(conn, settings.tables)  # raises, with what may have been meant
    return list(found.tables.values())


async def _refuse_missing(conn: Connection, journal: Journal) -> None:
    installed = await outbox_install.look(conn)
    if not installed.there:
        if await journal.identity() is not None:
            raise PublicationLost(
                "the outbox is gone: what was written since is missing",
                remedy="`watcher outbox install`, then `watcher run --adopt-slot`, and load the tables again.",
            )
        raise PreflightFailed(["the source has no outbox yet"], remedy=NOT_INSTALLED)
    if installed.rights:
        raise PreflightFailed(
            [f"the role may not: {right}" for right in installed.rights],
            remedy="`watcher outbox print --role …` prints the GRANTs.",
        )


async def cover(conn: Connection, settings: OutboxSettings) -> tuple[dict[str, Covered], float]:
    """Look how the watched tables are covered now, and how full the queue of notifications is: one small query."""
    seen, usage = await outbox.cover(conn, [parse_name(name) for name in settings.tables])
    return {qualify(one.schema, one.name): Covered(one.oid, one.triggers) for one in seen}, usage


def raise_gaps(lines: list[str]) -> None:
    """Raise PublicationLost if there is anything to say."""
    if lines:
        raise PublicationLost(
            f"the outbox may have left out rows: {'; '.join(lines)}",
            remedy="`watcher outbox install`, then `watcher run --adopt-slot`, and load the tables again.",
        )


async def _bind(
    conn: Connection, settings: OutboxSettings, journal: Journal, system_identifier: str, timeline: int
) -> str:
    """Compare the journal with the outbox, or bind a new one to it."""
    state = await outbox.state(conn)
    seen = OutboxSeen(system_identifier, timeline, state.journal, state.end_lsn)
    newest = [Snapshot.parse(state.snapshot), *(Snapshot.parse(one.snapshot) for one in await outbox.batches(conn))]
    check_place(state.cluster, max(one.xmax for one in newest), state.next_xid, seen)
    identity = await journal.identity()
    mark = await journal.get_note(MARK)
    if identity is not None:
        check_known(mark, identity, journal.durable_lsn, seen, adopt=settings.adopt_slot)
    if mark is None:
        mark = secrets.token_hex(16)
        await journal.set_note(MARK, mark)
        probes.reach("outbox.marked")
    if identity is None:
        check_new(mark, settings.journal_name, seen, adopt=settings.adopt_slot)
    await outbox.bind(conn, mark, adopt=settings.adopt_slot)
    probes.reach("outbox.bound")
    now = Identity(system_identifier, timeline, NAME, PUBLICATION)
    if identity is None:
        await journal.save_identity(now, state.end_lsn)
    elif identity != now:
        await journal.save_identity(now, journal.durable_lsn)
    return mark


def _key(settings: OutboxSettings, table: TableFacts) -> tuple[str, ...]:
    if settings.event_table is None or table.full_name != qualify(*parse_name(settings.event_table)):
        return table.primary_key
    return ("aggregateid",)
