"""
Whether a source can be watched, found out without changing anything on it.

The session is read-only. Facts are gathered first and judged afterwards, by `server_findings` and
`table_findings`; each fault is one line with the statement that mends it.
"""

from __future__ import annotations

from collections.abc import Mapping

from backend_watcher.errors import SourceError, WatcherError
from backend_watcher.postgres import catalog, poolers, publications, slots
from backend_watcher.postgres.catalog import Server
from backend_watcher.postgres.connect import Connection, address_of, connect, host_of
from backend_watcher.postgres.ddl_triggers import DdlTriggers, are_there, judge_triggers
from backend_watcher.postgres.findings import Finding, Report, Wish, fault, ok
from backend_watcher.postgres.names import check_publication_name, check_slot_name
from backend_watcher.postgres.outbox_findings import judge_kind
from backend_watcher.postgres.poolers import DIRECT, judge_host, judge_session
from backend_watcher.postgres.privileges import judge_withheld, withheld
from backend_watcher.postgres.server_findings import judge_provider, judge_server, judge_slot
from backend_watcher.postgres.slots import SlotFacts, WalSender
from backend_watcher.postgres.table_findings import judge_publication, judge_tables
from backend_watcher.postgres.translate import translating
from backend_watcher.postgres.versions import VERSION_MIN, judge_version

_PURPOSE = "check"
_NO_WALSENDER = frozenset({"replication_privilege", "max_wal_senders", "version"})
"""Faults with which a replication connection need not be tried: its refusal would only say the same."""


async def check(
    dsn: str,
    *,
    slot: str,
    publication: str,
    tables: Mapping[str, Wish],
    max_wal_bytes: int | None = None,
    ddl_triggers: DdlTriggers = "off",
    allow_superuser: bool = False,
) -> Report:
    """
    Look at everything the watcher needs of a source.

    Raises ConfigError only for names that cannot be names; whatever PostgreSQL says is in the report.
    """
    check_slot_name(slot)
    check_publication_name(publication)
    findings: list[Finding] = []
    try:
        findings.extend(judge_host(host_of(dsn)))
        async with await connect(dsn, purpose=_PURPOSE, read_only=True) as conn:
            findings.append(ok("connection", "server", f"connected to {address_of(dsn)}"))
            if conn.info.server_version < VERSION_MIN:
                findings.extend(judge_version(conn.info.server_version))
                return Report(tuple(findings))
            if refused := list(judge_withheld(await withheld(conn), conn.info.user)):
                return Report((*findings, *refused))
            server = await catalog.server(conn)
            findings.extend(judge_session(await poolers.look(conn, dsn)))
            slot_facts = await slots.look(conn, slot)
            findings.extend(judge_server(server, slot_facts, max_wal_bytes, allow_superuser))
            findings.extend(judge_provider(server.provider, server.version, slot, server.database))
            findings.extend(judge_slot(slot, slot_facts, server, await _reader(conn, slot_facts)))
            findings.extend(await _of_tables(conn, server, publication, tables, slot_facts is not None))
            findings.extend(judge_triggers(ddl_triggers, await are_there(conn), server))
            findings.extend(judge_kind("logical", server))
        if _NO_WALSENDER.isdisjoint(finding.code for finding in Report(tuple(findings)).faults):
            findings.append(await _replication(dsn, server))
    except WatcherError as error:
        findings.append(fault("connection", "server", error.message, error.remedy))
        return Report(tuple(findings), error)
    return Report(tuple(findings))


async def _reader(conn: Connection, slot: SlotFacts | None) -> WalSender | None:
    if slot is None or slot.active_pid is None:
        return None
    return next(iter(await slots.walsenders(conn, pid=slot.active_pid)), None)


async def _of_tables(
    conn: Connection, server: Server, publication: str, tables: Mapping[str, Wish], slot_exists: bool
) -> list[Finding]:
    publication_facts = await publications.look(conn, publication)
    found = await catalog.find_tables(conn, tables)
    return [
        *judge_publication(publication, publication_facts, found, tables, server, slot_exists),
        *judge_tables(found, tables, publication_facts, server),
    ]


async def _replication(dsn: str, server: Server) -> Finding:
    """Open a replication connection and close it again: it takes a walsender for a moment, and changes nothing."""
    remedy = f"{DIRECT}, not those of a pooler; see pg_hba.conf"
    try:
        async with await connect(dsn, purpose=_PURPOSE, replication=True) as conn:
            with translating():
                row = await (await conn.execute("IDENTIFY_SYSTEM")).fetchone()
    except SourceError as error:
        return fault("replication_connection", "server", f"no replication connection: {error.message}", remedy)
    if row is None or str(row[0]) != server.system_identifier:
        message = "the replication connection reaches another server than the queries do"
        return fault("replication_connection", "server", message, remedy)
    return ok("replication_connection", "server", "a replication connection can be opened")
