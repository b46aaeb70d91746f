"""`watcher status`: where everything stands, whether or not a watcher runs."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING, Any

from backend_watcher.cli import backfill, proved, schema, settings
from backend_watcher.cli.screen import print_json, print_pairs, print_table, size, span
from backend_watcher.events.position import Position, format_lsn

if TYPE_CHECKING:
    from backend_watcher.service.control import SourceStatus, Status, SubscriptionStatus

SCHEMA_CHANGES_SHOWN = 20


def status(target: settings.Target = None, config: settings.ConfigPath = None, json: settings.Json = False) -> int:
    """Show the process, the source, the journal, and how far each subscription is."""
    from backend_watcher.service import control

    found, watcher = settings.read(target, config, complete=False)
    now = asyncio.run(control.status(found, watcher))
    if json:
        print_json(_plain(dataclasses.asdict(now)) | {"exit_code": 0})
    else:
        _show(now)
    return 0


def _plain(value: Any, name: str = "") -> Any:
    """Write positions and LSNs as people read them."""
    if isinstance(value, Position):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(inner, key) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return format_lsn(value) if name.endswith("_lsn") and isinstance(value, int) else value


def _show(status: Status) -> None:
    print_pairs(
        [
            ("watcher", status.name),
            ("process", _process(status)),
            ("source", _source(status.source) if status.source else "no DSN is set"),
            ("slot", _slot(status)),
            ("journal", _journal(status)),
        ]
    )
    rows = [
        (
            one.name,
            _state(one),
            str(one.cursor) if one.cursor is not None else "–",
            size(one.lag_bytes),
            span(one.lag_seconds),
            _held(one),
            _error(one.error, one.attempt),
        )
        for one in status.subscriptions
    ]
    if rows:
        print_table(("subscription", "state", "cursor", "behind", "for", "failing keys", "last error"), rows)
    proved.show(status.subscriptions)
    # What is under way, and what went wrong last.
    backfill.show([one for one in status.backfills if one.is_open or one.state == "failed"][-backfill.SHOWN :])
    schema.show(status.schema_changes, SCHEMA_CHANGES_SHOWN)


def _process(status: Status) -> str:
    process = status.process
    if process is None:
        return "has not run yet; `watcher run` starts it"
    since = span(max(0.0, time.time() - process.since)) if process.since else "–"
    if not process.running:
        return f"does not run; the last was pid {process.pid}, {process.state}"
    detail = f" ({process.detail})" if process.detail else ""
    return f"pid {process.pid}, for {since}; source {process.source_state}{detail}"


def _source(source: SourceStatus) -> str:
    return source.address if source.reachable else f"{source.address}: {source.error}"


def _slot(status: Status) -> str:
    source = status.source
    if source is None or not source.reachable:
        return ""
    if source.heard:
        return f"none; {source.heard}"
    if source.slot is None:
        return "does not exist"
    slot = source.slot
    lsn = format_lsn(slot.confirmed_flush_lsn) if slot.confirmed_flush_lsn is not None else "–"
    used = "lost" if slot.is_lost else "active" if slot.active else "not in use"
    of = f" (of {size(slot.max_wal_bytes)})" if slot.max_wal_bytes is not None else ""
    warning = f"; WARNING: {slot.warning}" if slot.warning else ""
    return f"{slot.name}: {used}, confirmed {lsn}, holds {size(slot.wal_held_bytes)} of WAL{of}{warning}"


def _journal(status: Status) -> str:
    journal = status.journal
    if journal is None:
        return f"{status.journal_path}: does not exist yet"
    oldest = f", oldest {span(max(0.0, time.time() - journal.oldest_time))} ago" if journal.oldest_time else ""
    full = "; FULL: capture waits" if journal.full else ""
    return (
        f"{status.journal_path}: {size(journal.size_bytes)} in {journal.blocks} blocks{oldest}, "
        f"durable to {format_lsn(journal.durable_lsn)}{full}"
    )


def _state(one: SubscriptionStatus) -> str:
    return f"{one.state} ({one.detail})" if one.detail and one.state not in ("running", "idle") else one.state


def _held(one: SubscriptionStatus) -> str:
    counts = [(one.parked_keys, "parked"), (one.retrying_keys, "retrying")]
    return ", ".join(f"{count} {word}" for count, word in counts if count)


def _error(error: str | None, attempt: int) -> str:
    return f"{error} (attempt {attempt})" if error else ""
