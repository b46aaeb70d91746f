"""
Before a stream begins: what must exist is created, in the one safe order, and what exists is compared.

Publication first, then slot: what a slot sees before its publication exists is an error on PostgreSQL 17 and
lost without a word on 18.
"""

from __future__ import annotations

from dataclasses import dataclass

from backend_watcher import probes
from backend_watcher.capture.start import SlotSeen, SourceSeen, check_known, check_new
from backend_watcher.contracts import Identity, Journal
from backend_watcher.errors import BecameSynchronous
from backend_watcher.postgres import catalog, publications, slots, standbys
from backend_watcher.postgres.catalog import Server, TableFacts
from backend_watcher.postgres.connect import APPLICATION_NAME, Connection
from backend_watcher.postgres.replication import ReplicationStream

CREATING = "creating_slot"
"""The note that says a slot of ours may exist although the journal has no identity yet."""

_FAILOVER_SINCE = 170_000
FEEDBACK_SECONDS_MAX = 10.0
_FEEDBACK_SHARE = 3.0


@dataclass(frozen=True, slots=True)
class LogicalSettings:
    """Where to listen, and to which tables (`schema.table`)."""

    dsn: str
    slot: str
    publication: str
    tables: tuple[str, ...]
    heartbeat_seconds: float = 10.0
    adopt_slot: bool = False
    journal_name: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a stream begins with. `keys` holds the primary key of each watched table by its OID."""

    start_lsn: int
    keys: dict[int, tuple[str, ...]]
    oids: frozenset[int]
    feedback_seconds: float


async def prepare(
    connection: Connection, stream: ReplicationStream, settings: LogicalSettings, journal: Journal
) -> Prepared:
    """
    Make the source ready, or find out that going on would not be safe.

    Raises a SafetyStop, PreflightFailed, SourceRefused or SourceUnavailable.
    """
    system = await stream.open()
    server = await catalog.server(connection)
    refuse_synchronous(server.synchronous_standby_names)
    tables = list((await catalog.tables(connection, settings.tables)).values())
    identity = await journal.identity()
    publication = await publications.look(connection, settings.publication)
    seen = SourceSeen(
        system.system_identifier,
        system.timeline,
        system.flush_lsn,
        server.database,
        await _slot(connection, settings.slot),
        publication is not None,
    )
    if identity is None:
        start_lsn = await _begin(connection, settings, journal, server, seen, tables)
    else:
        check_known(settings.slot, identity, journal.durable_lsn, seen)
        start_lsn = journal.durable_lsn
        await publications.align(connection, settings.publication, tables)
    timeout = server.wal_sender_timeout_seconds
    feedback = min(FEEDBACK_SECONDS_MAX, timeout / _FEEDBACK_SHARE) if timeout > 0 else FEEDBACK_SECONDS_MAX
    return Prepared(
        start_lsn, {table.oid: table.primary_key for table in tables}, frozenset(t.oid for t in tables), feedback
    )


def refuse_synchronous(setting: str) -> None:
    """Raise BecameSynchronous where commits would wait for a walsender of our name."""
    if standbys.chooses(setting, f"{APPLICATION_NAME}:capture"):
        raise BecameSynchronous(f"synchronous_standby_names is {setting!r}, which means this watcher too")


async def _begin(
    connection: Connection,
    settings: LogicalSettings,
    journal: Journal,
    server: Server,
    seen: SourceSeen,
    tables: list[TableFacts],
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
        lsn = await slots.create(connection, settings.slot, failover=server.version >= _FAILOVER_SINCE)
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
    return SlotSeen(facts.plugin, facts.database, facts.confirmed_flush_lsn, lost)
