"""
Before a stream begins: what must exist is created, in the one safe order, and what exists is compared.

Publication first, then slot: what a slot sees before its publication exists is an error on PostgreSQL 17 and
lost without a word on 18.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import structlog

from backend_watcher import probes
from backend_watcher.capture.drift import Coverage, gaps
from backend_watcher.capture.left_open import PREPARED_SECONDS_MAX
from backend_watcher.capture.schema import gap_noticed
from backend_watcher.capture.schema_notes import add_changes
from backend_watcher.capture.slot_wait import Tell, create_slot
from backend_watcher.capture.start import SlotSeen, SourceSeen, check_known, check_names, check_new
from backend_watcher.contracts import Identity, Journal
from backend_watcher.errors import BecameSynchronous, PublicationLost
from backend_watcher.events.position import START
from backend_watcher.events.table import qualify
from backend_watcher.postgres import catalog, ddl_triggers, publications, slots, standbys, surroundings
from backend_watcher.postgres.catalog import Server, TableFacts
from backend_watcher.postgres.connect import APPLICATION_NAME, Connection
from backend_watcher.postgres.ddl_triggers import DdlTriggers
from backend_watcher.postgres.names import parse_name
from backend_watcher.postgres.replication import ReplicationStream, SystemIdentity
from backend_watcher.postgres.surroundings import TableSeen

log = structlog.get_logger("watcher")

CREATING = "creating_slot"
"""The note that says a slot of ours may exist although the journal has no identity yet."""

PUBLISHED = "published"
"""The note that says how the publication covered the watched tables when it was last looked at."""

NUMBERED = "messages"
"""The note that says that logical messages have a place in the order."""

MAX_WAL_BYTES = 10 << 30
MAX_SPILL_BYTES = 20 << 30
"""What transactions in progress may take on this machine's disk; beyond it PostgreSQL keeps them until their commit."""
_FAILOVER_SINCE = 170_000
FEEDBACK_SECONDS_MAX = 10.0
_FEEDBACK_SHARE = 3.0


@dataclass(frozen=True, slots=True)
class LogicalSettings:
    """
    Where to listen, and to which tables (`schema.table`).

    With a `spill_folder`, which must be ours alone, a large transaction comes while it is in progress, and waits there
    for its commit. With `messages` logical messages are captured too, and transactions come whole. `schema_changes`
    says of which tables they are told: of those here, or of all that the publication sends.
    """

    dsn: str
    slot: str
    publication: str
    tables: tuple[str, ...]
    heartbeat_seconds: float = 10.0
    adopt_slot: bool = False
    journal_name: str = ""
    max_wal_bytes: int = MAX_WAL_BYTES
    messages: bool = False
    spill_folder: Path | None = None
    max_spill_bytes: int = MAX_SPILL_BYTES
    ddl_triggers: DdlTriggers = "off"
    schema_changes: Literal["watched", "published"] = "watched"
    allow_superuser: bool = False
    prepared_seconds_max: float = PREPARED_SECONDS_MAX


@dataclass(frozen=True, slots=True)
class Prepared:
    """
    What a stream begins with. `keys` holds the primary key of each watched table by its OID.

    `messages` says that logical messages have a place in the order.
    """

    start_lsn: int
    keys: dict[int, tuple[str, ...]]
    coverage: Coverage
    feedback_seconds: float
    messages: bool


async def prepare(
    connection: Connection, stream: ReplicationStream, settings: LogicalSettings, journal: Journal, tell: Tell
) -> Prepared:
    """
    Make the source ready, or find out that going on would not be safe.

    `tell` hears the state of the source where that takes long, with a line on why.
    Raises a SafetyStop, PreflightFailed, SourceRefused or SourceUnavailable.
    """
    system = await stream.open()
    server = await catalog.server(connection)
    refuse_synchronous(server.synchronous_standby_names)
    identity = await journal.identity()
    before = Coverage.from_note(await journal.get_note(PUBLISHED))
    tables = await _tables(connection, settings, before)
    seen = await _see(connection, stream, settings, system, server, identity)
    if identity is None:
        start_lsn = await _begin(connection, settings, journal, server, seen, tables, tell)
    else:
        start_lsn = await _go_on(connection, settings, journal, identity, seen, tables, before)
    if settings.ddl_triggers == "auto" and (refused := await ddl_triggers.install(connection)) is not None:
        log.warning("no event triggers: schema changes are noticed a few seconds later", reason=refused)
    coverage = await _coverage(connection, settings, tables, before)
    if (note := coverage.to_note()) != await journal.get_note(PUBLISHED):
        await journal.set_note(PUBLISHED, note)
    timeout = server.wal_sender_timeout_seconds
    feedback = min(FEEDBACK_SECONDS_MAX, timeout / _FEEDBACK_SHARE) if timeout > 0 else FEEDBACK_SECONDS_MAX
    keys = {table.oid: table.primary_key for table in tables}
    return Prepared(start_lsn, keys, coverage, feedback, await _numbering(settings, journal))


async def _numbering(settings: LogicalSettings, journal: Journal) -> bool:
    """
    Say whether messages are to be numbered.

    A transaction of which a part is in the journal is numbered to its end as it was begun: with fewer numbers, what
    is still missing of it would be taken for what is there.
    """
    noted = await journal.get_note(NUMBERED) is not None
    within = journal.last_position > START and journal.last_position.commit_lsn >= journal.durable_lsn
    numbered = settings.messages or (noted and within)
    if numbered != noted:
        await journal.set_note(NUMBERED, "yes" if numbered else None)
    return numbered


async def _tables(connection: Connection, settings: LogicalSettings, before: Coverage | None) -> list[TableFacts]:
    """Find the watched tables. One that was there, and was dropped since, stops nobody: `schema.py` tells of it."""
    found = await catalog.find_tables(connection, settings.tables)
    known = before.tables if before is not None else {}
    if any(qualify(*parse_name(name)) not in known for name in found.missing):
        await catalog.tables(connection, settings.tables)  # raises, with what may have been meant
    return list(found.tables.values())


def refuse_synchronous(setting: str) -> None:
    """Raise BecameSynchronous where commits would wait for a walsender of our name."""
    if standbys.chooses(setting, f"{APPLICATION_NAME}:capture"):
        raise BecameSynchronous(f"synchronous_standby_names is {setting!r}, which means this watcher too")


async def _see(
    connection: Connection,
    stream: ReplicationStream,
    settings: LogicalSettings,
    system: SystemIdentity,
    server: Server,
    identity: Identity | None,
) -> SourceSeen:
    fork_lsn = None
    if identity is not None and system.timeline > identity.timeline:
        fork_lsn = await stream.fork_lsn(system.timeline, identity.timeline)
    return SourceSeen(
        system.system_identifier,
        system.timeline,
        system.flush_lsn,
        server.database,
        await _slot(connection, settings.slot),
        await publications.look(connection, settings.publication) is not None,
        fork_lsn,
    )


async def _go_on(
    connection: Connection,
    settings: LogicalSettings,
    journal: Journal,
    identity: Identity,
    seen: SourceSeen,
    tables: list[TableFacts],
    before: Coverage | None,
) -> int:
    """Continue a journal where it ended, and follow it to another timeline or publication where that is allowed."""
    if not settings.adopt_slot:
        check_names(identity, settings.publication)
    check_known(settings.slot, identity, journal.durable_lsn, seen)
    if not settings.adopt_slot:
        await _refuse_gaps(connection, settings.publication, journal, tables, before)
    # A table that was made again is published by the watch, which goes on where it may not be.
    known = before.tables if before is not None else {}
    replaced = {table.full_name for table in tables if _is_other(known.get(table.full_name), table)}
    here = [table for table in tables if table.full_name not in replaced]
    await publications.align(connection, settings.publication, here)
    now = replace(identity, timeline=seen.timeline, publication=settings.publication)
    if now != identity:
        await journal.save_identity(now, journal.durable_lsn)
    return journal.durable_lsn


def _is_other(was: TableSeen | None, now: TableFacts) -> bool:
    """Say whether a table was made again under a watched name, and not published since."""
    return was is not None and (was.oid != now.oid or not was.entries)


async def _refuse_gaps(
    connection: Connection, publication: str, journal: Journal, tables: list[TableFacts], before: Coverage | None
) -> None:
    """Raise PublicationLost where a table was not published all the time since the last look."""
    if before is None:
        return
    before = before.only(table.full_name for table in tables)
    seen = await surroundings.look(
        connection, slot="", pid=0, publication=publication, names=_names(tables), oids=before.oids
    )
    lines = gaps(before, seen.publication, seen.tables)
    await add_changes(journal, [gap_noticed(publication, line) for line in lines], once=True)
    raise_gaps(publication, lines)


def raise_gaps(publication: str, lines: list[str]) -> None:
    """Raise PublicationLost if there is anything to say."""
    if lines:
        raise PublicationLost(
            f"publication {publication!r} may have left out rows: {'; '.join(lines)}",
            remedy="Make the publication whole, accept it with `watcher run --adopt-slot`, and load the tables again.",
        )


async def _coverage(
    connection: Connection, settings: LogicalSettings, tables: list[TableFacts], before: Coverage | None
) -> Coverage:
    """Say how the watched tables are covered now; one that is gone stays as it was, it may be made again."""
    publication = settings.publication
    seen = await surroundings.look(connection, slot="", pid=0, publication=publication, names=_names(tables))
    if seen.publication is None:
        raise PublicationLost(f"publication {publication!r} was dropped")
    names = [qualify(*parse_name(name)) for name in settings.tables]
    return (before or Coverage(seen.publication, {})).followed(seen.publication, seen.tables, names)


def _names(tables: list[TableFacts]) -> list[tuple[str, str]]:
    return [(table.schema, table.name) for table in tables]


async def _begin(
    connection: Connection,
    settings: LogicalSettings,
    journal: Journal,
    server: Server,
    seen: SourceSeen,
    tables: list[TableFacts],
    tell: Tell,
) -> int:
    """Bind a new journal to a slot: its own, created now or in a start that was cut short, or an adopted one."""
    mark = f"{seen.system_identifier}/{settings.slot}"
    ours = settings.adopt_slot or await journal.get_note(CREATING) == mark
    lsn = check_new(settings.slot, settings.journal_name, seen, ours=ours)
    if seen.publication_exists:
        await publications.align(connection, settings.publication, tables)
    else:
        await publications.create(connection, settings.publication, tables)
        probes.reach("capture.publication_created")
    if lsn is None:
        await journal.set_note(CREATING, mark)
        failover = server.version >= _FAILOVER_SINCE
        lsn = await create_slot(connection, settings.dsn, settings.slot, failover=failover, tell=tell)
        probes.reach("capture.slot_created")
    identity = Identity(seen.system_identifier, seen.timeline, settings.slot, settings.publication)
    await journal.save_identity(identity, lsn)
    probes.reach("capture.identity_saved")
    await journal.set_note(CREATING, None)
    return lsn


async def _slot(connection: Connection, name: str) -> SlotSeen | None:
    facts = await slots.look(connection, name)
    if facts is None:
        return None
    lost = (facts.invalidation_reason or facts.wal_status) if facts.is_lost else None
    return SlotSeen(facts.plugin, facts.database, facts.confirmed_flush_lsn, lost, facts.failover)
