"""Every type through the outbox: the very bytes that the stream brings, whatever the database has for defaults."""

from __future__ import annotations

from typing import Any

import pytest
from test_values_streamed import Database, database, everything, journal, plain

from backend_watcher.events.change import Change
from backend_watcher.journal import MemoryJournal
from capture.outbox_street import OutboxStreet, install
from capture.street import App

__all__ = ["database", "journal", "plain"]

CHANGE_ALL = (
    "INSERT INTO public.w SELECT * FROM public.v",
    "UPDATE public.w SET id = id",
    "DELETE FROM public.w",
)


async def heard(dsn: str, journal: MemoryJournal, table: str, count: int, *statements: str) -> list[Change]:
    """Do something in the database while the table writes into the outbox; return the changes that come of it."""
    await install(dsn, table)
    street = OutboxStreet(dsn, journal, table)
    async with App.connected(dsn) as app, street.listening():
        await app.run(*statements)
        return await street.changes(count)


@pytest.mark.timeout(120)
async def test_the_outbox_gives_the_bytes_that_the_stream_gives(database: Database, journal: MemoryJournal) -> None:
    streamed = await everything(database, journal)
    async with App.connected(database.dsn) as app:
        await app.run("TRUNCATE public.w", "ALTER TABLE public.w REPLICA IDENTITY FULL")
    other = MemoryJournal()
    await other.open()
    changes = await heard(database.dsn, other, "public.w", 3 * database.rows, *CHANGE_ALL)
    raw = {change.row["id"]: raw_of(change) for change in streamed}
    assert len(raw) == database.rows
    operations = [change.operation for change in changes]
    assert operations == ["insert"] * database.rows + ["update"] * database.rows + ["delete"] * database.rows
    for change in changes:
        assert raw_of(change) == raw[change.row["id"]]
        if change.operation == "update":
            assert change.old is not None
            assert {name: change.old.raw(name) for name in change.old} == raw[change.row["id"]]
        assert [c.type_oid for c in change.table.columns] == [c.type_oid for c in streamed[0].table.columns]
        assert change.key == (change.row["id"],)
    await other.close()


def raw_of(change: Change) -> dict[str, Any]:
    return {name: change.row.raw(name) for name in change.row}
