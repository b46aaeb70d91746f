"""Whether a source can be heard by its outbox or by notifications, found out without changing anything on it."""

from __future__ import annotations

from collections.abc import Iterable

from backend_watcher.errors import WatcherError
from backend_watcher.postgres import catalog, notifications, outbox_install
from backend_watcher.postgres.catalog import Server
from backend_watcher.postgres.connect import Connection, address_of, connect
from backend_watcher.postgres.findings import Finding, Report, fault, ok, warning
from backend_watcher.postgres.outbox_findings import judge_kind, judge_outbox
from backend_watcher.postgres.poolers import judge_session, look
from backend_watcher.postgres.queries import fetch_one
from backend_watcher.postgres.versions import VERSION_MIN, judge_version

QUEUE_SHARE_MAX = 0.1


async def check_outbox(dsn: str, *, tables: Iterable[str], event_table: str | None, notify: bool) -> Report:
    """Look at everything the reader of an outbox needs of a source. Raises ConfigError only for the names of tables."""
    findings: list[Finding] = []
    try:
        async with await connect(dsn, purpose="check", read_only=True) as conn:
            server = await _begin(conn, dsn, findings)
            if server is None:
                return Report(tuple(findings))
            commits = await fetch_one(conn, "commits") or {"prepared_max": 0, "per_second": 0.0}
            findings.extend(
                judge_outbox(
                    await outbox_install.look(conn),
                    await catalog.find_tables(conn, tables),
                    event_table,
                    notify=notify,
                    prepared_transactions=int(commits["prepared_max"]),
                    commits_per_second=float(commits["per_second"]),
                    server=server,
                )
            )
            findings.extend(judge_kind("outbox", server))
            if notify:
                findings.extend(await _queue(conn))
    except WatcherError as error:
        findings.append(fault("connection", "server", error.message, error.remedy))
        return Report(tuple(findings), error)
    return Report(tuple(findings))


async def check_notify(dsn: str) -> Report:
    """Look at what it takes to listen."""
    findings: list[Finding] = []
    try:
        async with await connect(dsn, purpose="check", read_only=True) as conn:
            server = await _begin(conn, dsn, findings)
            if server is not None:
                if server.in_recovery:
                    findings.append(fault("standby", "server", "nothing is notified on a standby", "name the primary"))
                findings.extend(judge_kind("notify", server))
                findings.extend(await _queue(conn))
    except WatcherError as error:
        findings.append(fault("connection", "server", error.message, error.remedy))
        return Report(tuple(findings), error)
    return Report(tuple(findings))


async def _begin(conn: Connection, dsn: str, findings: list[Finding]) -> Server | None:
    """Look at the connection itself; None where nothing else can be asked."""
    findings.append(ok("connection", "server", f"connected to {address_of(dsn)}"))
    findings.extend(judge_version(conn.info.server_version))
    if conn.info.server_version < VERSION_MIN:
        return None
    session = list(judge_session(await look(conn, dsn)))
    findings.extend(session)
    # What follows asks about this session, which is not ours behind a pooler.
    return None if Report(tuple(session)).faults else await catalog.server(conn)


async def _queue(conn: Connection) -> list[Finding]:
    usage = await notifications.queue_usage(conn)
    if usage < QUEUE_SHARE_MAX:
        return [ok("notification_queue", "server", f"the queue of notifications is {usage:.0%} full")]
    message = f"the queue of notifications is {usage:.0%} full: commits that notify fail when it is full"
    remedy = (
        "SELECT pid, state, xact_start FROM pg_stat_activity ORDER BY xact_start; -- end who listens and does not read"
    )
    return [warning("notification_queue", "server", message, remedy)]
