"""The three ways to hear: which settings each takes, how each is looked at before a run, and which object reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from backend_watcher.capture.notify import BEST_EFFORT, NotifySettings, NotifySource
from backend_watcher.capture.outbox import OutboxSource
from backend_watcher.capture.outbox_prepare import OutboxSettings
from backend_watcher.capture.prepare import LogicalSettings
from backend_watcher.contracts import Journal, Observer, Source
from backend_watcher.errors import ConfigError
from backend_watcher.events.position import format_lsn
from backend_watcher.postgres import outbox, outbox_install, outbox_preflight, preflight
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.findings import Report, Wish
from backend_watcher.reconcile.source import Source as ReadingSource
from backend_watcher.service.config import Config, SourceConfig
from backend_watcher.service.subscribed import full_name

SourceSettings: TypeAlias = LogicalSettings | OutboxSettings | NotifySettings


def settings_of(config: Config, tables: tuple[str, ...], *, messages: bool, adopt_slot: bool) -> SourceSettings:
    """
    Return what the source of this kind needs to know; `messages` says that logical messages are wanted.

    Raises ConfigError where something is wanted that this kind does not hear.
    """
    source = config.source
    if source.kind == "outbox":
        event_table = full_name(source.outbox_table) if source.outbox_table is not None else None
        if event_table is not None and event_table not in tables:
            raise ConfigError(
                [f"source.outbox_table is {source.outbox_table!r}, and no subscription hears it"],
                remedy=f"Declare one with @watcher.on({source.outbox_table!r}), or take the setting out.",
            )
        return OutboxSettings(
            dsn=source.dsn,
            tables=tables,
            event_table=event_table,
            notify=source.outbox_notify,
            poll_seconds=source.outbox_poll_seconds,
            adopt_slot=adopt_slot,
            journal_name=str(config.journal.path),
        )
    if source.kind == "notify":
        if tables:
            raise ConfigError(
                [f"source.kind is 'notify': changes of {', '.join(tables)} are not heard, only notifications"],
                remedy="Take `@watcher.on_message(channel)`, or set source.kind to 'logical' or 'outbox'.",
            )
        return NotifySettings(source.dsn, source.channels, journal_name=str(config.journal.path))
    return LogicalSettings(
        dsn=source.dsn,
        slot=source.slot,
        publication=source.publication,
        tables=tables,
        heartbeat_seconds=source.heartbeat_seconds,
        adopt_slot=adopt_slot,
        journal_name=str(config.journal.path),
        max_wal_bytes=source.max_wal_bytes,
        messages=messages,
        spill_folder=spill_of(config.journal.path) if source.streaming else None,
        max_spill_bytes=source.max_spill_bytes,
        ddl_triggers=source.ddl_triggers,
        schema_changes=source.schema_changes,
        allow_superuser=source.allow_superuser,
        prepared_seconds_max=source.prepared_seconds_max,
    )


def reading_source(source: SourceConfig) -> ReadingSource:
    """Return what reads tables beside the stream, to compare them."""
    return ReadingSource(source.dsn, source.publication if source.kind == "logical" else None)


def spill_of(journal: Path) -> Path:
    """Return the folder beside a journal where transactions in progress wait for their commit."""
    return journal.with_name(f"{journal.name}-spill")


def other_source(settings: OutboxSettings | NotifySettings, journal: Journal, observer: Observer) -> Source:
    """Return the object that reads."""
    if isinstance(settings, OutboxSettings):
        return OutboxSource(settings, journal, observer)
    return NotifySource(settings, journal, observer)


async def look_before(settings: SourceSettings, wishes: Mapping[str, Wish]) -> Report:
    """Find out whether a run could start, and change nothing."""
    if isinstance(settings, OutboxSettings):
        return await outbox_preflight.check_outbox(
            settings.dsn, tables=settings.tables, event_table=settings.event_table, notify=settings.notify
        )
    if isinstance(settings, NotifySettings):
        return await outbox_preflight.check_notify(settings.dsn)
    return await preflight.check(
        settings.dsn,
        slot=settings.slot,
        publication=settings.publication,
        tables=wishes,
        max_wal_bytes=settings.max_wal_bytes,
        ddl_triggers=settings.ddl_triggers,
        allow_superuser=settings.allow_superuser,
    )


async def heard_words(connection: Connection, kind: str) -> str:
    """Say for people how a source without a slot is heard, and where that stands."""
    if kind == "notify":
        return BEST_EFFORT
    if not (await outbox_install.look(connection)).there:
        return "the outbox does not exist"
    state = await outbox.state(connection)
    size = sum(part.size_bytes for part in await outbox.parts(connection))
    reader = "read" if state.journal is not None else "not read yet"
    return f"outbox: {reader} to {format_lsn(state.end_lsn)}, {size >> 10:,} KiB"
