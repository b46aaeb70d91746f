"""Which way to hear suits a server, and what stands in the way of the outbox. Pure: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator

from backend_watcher.postgres.catalog import Found, Server, TableFacts, missing_text
from backend_watcher.postgres.findings import Finding, fault, ok, warning
from backend_watcher.postgres.names import quote
from backend_watcher.postgres.outbox_install import Installed, missing_triggers

BEST_EFFORT = "kind 'notify' is best effort: what is notified while nobody listens is lost"
EVENT_COLUMNS = ("id", "aggregatetype", "aggregateid", "type", "payload")
"""What a table has that Debezium's outbox event router can read."""

NOTIFYING_COMMITS_MAX = 100.0
"""A second. Above, the cluster-wide lock of NOTIFY is felt."""

_INSTALL = "watcher outbox install -- or let who may run what `watcher outbox print` prints"


def why_not_logical(server: Server) -> str | None:
    """Say what keeps this server from logical decoding as it is; None where nothing does."""
    if server.wal_level != "logical":
        return f"wal_level is {server.wal_level}"
    if not (server.is_superuser or server.has_replication):
        return f"role {quote(server.role)} may not replicate"
    return None


def judge_kind(kind: str, server: Server) -> Iterator[Finding]:
    """Recommend a kind of source, and say why."""
    reason = why_not_logical(server)
    if kind == "logical":
        if reason is None:
            yield ok("kind", "server", "source.kind 'logical' suits this server: it costs the application nothing")
        else:
            message = (
                f"{reason}: where that cannot be changed, source.kind 'outbox' is recommended: it hears the "
                'by triggers (kind = "outbox" under [source], then watcher outbox install)'
            )
            yield ok("kind", "server", message)
    elif kind == "outbox":
        if reason is None:
            message = (
                "source.kind 'logical' would do here, and is recommended: wal_level is logical, and it costs the "
                "application's writes nothing"
            )
        else:
            message = f"source.kind 'outbox' suits this server: {reason}"
        yield ok("kind", "server", message)
    else:
        better = "logical" if reason is None else "outbox"
        why = "wal_level is logical" if reason is None else reason
        yield warning("kind", "server", BEST_EFFORT, f'kind = "{better}" under [source], if nothing may be lost: {why}')


def judge_outbox(
    installed: Installed,
    found: Found,
    event_table: str | None,
    *,
    notify: bool,
    prepared_transactions: int,
    commits_per_second: float,
    server: Server,
) -> Iterator[Finding]:
    """Judge the outbox and its triggers; `prepared_transactions` is the server's max_prepared_transactions."""
    if server.in_recovery:
        yield fault("standby", "server", "this server is a standby: nothing can be noted here", "name the primary")
    if not installed.there:
        yield fault("outbox_missing", "outbox", "the source has no outbox yet", _INSTALL)
    elif installed.rights:
        rights = "; ".join(installed.rights)
        message = f"role {quote(server.role)} may not read the outbox: it lacks {rights}"
        yield fault("outbox_rights", "outbox", message, f"watcher outbox print --role {server.role}")
    else:
        yield ok("outbox", "outbox", "the outbox is there and can be read")
    if installed.there and installed.notifies is not notify:
        does = "notifies" if installed.notifies else "does not notify"
        message = f"the outbox {does}, and source.outbox_notify is {str(notify).lower()}"
        yield warning("outbox_notify", "outbox", message, "watcher outbox install")
    if notify and prepared_transactions:
        message = "max_prepared_transactions is not 0, and PREPARE TRANSACTION fails where something was notified"
        remedy = "outbox_notify = false under [source], if the application uses it; then watcher outbox install"
        yield warning("prepared_transactions", "server", message, remedy)
    if notify and commits_per_second > NOTIFYING_COMMITS_MAX:
        message = (
            f"{commits_per_second:.0f} transactions a second are committed here, and those that notify commit one "
            "after the other"
        )
        remedy = "outbox_notify = false under [source], if many of them write; then watcher outbox install"
        yield warning("notify_rate", "server", message, remedy)
    for name, close in found.missing.items():
        remedy = f"write {close[0]} instead" if close else "create it, or take its name out of the configuration"
        yield fault("table_missing", name, missing_text(name, close), remedy)
    for name, table in found.tables.items():
        yield from _table(name, table, installed, inserts_only=name == event_table)


def _table(name: str, table: TableFacts, installed: Installed, *, inserts_only: bool) -> Iterator[Finding]:
    away = "take it out of the configuration"
    if table.kind not in {"r", "p"} or table.is_system or table.persistence == "t":
        message = f"{table.quoted} is no table of the application's that lasts: triggers cannot tell of its changes"
        yield fault("not_publishable", name, message, away)
        return
    if inserts_only:
        there = {column.name for column in table.columns}
        lacking = [column for column in EVENT_COLUMNS if column not in there]
        if lacking:
            message = f"table {table.quoted} is no outbox table: it lacks {', '.join(lacking)}"
            yield fault("outbox_table", name, message, "correct source.outbox_table, or add the columns")
            return
    elif not table.primary_key:
        message = f"table {table.quoted} has no primary key: its rows cannot be told apart"
        yield warning("no_primary_key", name, message, f"ALTER TABLE {table.quoted} ADD PRIMARY KEY (…);")
    if installed.there and not installed.rights and missing_triggers(table, installed, inserts_only=inserts_only):
        message = f"table {table.quoted} does not write into the outbox: it lacks a trigger, or has it disabled"
        yield fault("outbox_trigger", name, message, _INSTALL)
    else:
        yield ok("table", name, f"table {table.quoted} writes into the outbox")
