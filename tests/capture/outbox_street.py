"""The application that writes, its outbox, and capture that reads it."""

from __future__ import annotations

from typing import Any

from backend_watcher.capture.outbox import OutboxSource
from backend_watcher.capture.outbox_prepare import OutboxSettings
from backend_watcher.contracts import Journal
from backend_watcher.postgres import catalog, outbox_install
from backend_watcher.postgres.connect import connect
from backend_watcher.postgres.names import parse_name

from .street import NEVER, Street


async def install(dsn: str, *tables: str, notify: bool = True, event_table: str | None = None) -> int:
    """Make the outbox and the triggers of these tables, as `watcher outbox install` does."""
    async with await connect(dsn, purpose="install") as conn:
        found = list((await catalog.tables(conn, tables)).values())
        only = frozenset(
            one.oid for one in found if event_table is not None and (one.schema, one.name) == parse_name(event_table)
        )
        return await outbox_install.install(conn, found, only, notify=notify)


class OutboxStreet(Street):
    """One outbox and its journal. `listening` runs the reader; afterwards it may be run again, as after a restart."""

    def __init__(self, dsn: str, journal: Journal, *tables: str, **settings: Any) -> None:
        super().__init__(dsn, journal, *tables)
        wished = tables or ("public.products",)
        self.settings: OutboxSettings = OutboxSettings(dsn, wished, journal_name="j.db", **settings)  # type: ignore[assignment]
        self.quiet_seconds = NEVER

    def source(self) -> OutboxSource:  # type: ignore[override]
        return OutboxSource(
            self.settings,
            self.journal,
            self.observer,
            watch_seconds=self.watch_seconds,
            quiet_seconds=self.quiet_seconds,
        )
