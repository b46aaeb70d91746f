"""What is created, in which order, and what is refused before anything is streamed; on a real server."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from backend_watcher import probes
from backend_watcher.capture.prepare import CREATING
from backend_watcher.contracts import Identity
from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.errors import (
    BecameSynchronous,
    ConfigError,
    JournalLost,
    PreflightFailed,
    PublicationLost,
    SlotLost,
    SlotMoved,
    SourceRefused,
    WrongCluster,
)
from backend_watcher.journal import MemoryJournal, SqliteJournal
from backend_watcher.postgres import publications, slots
from backend_watcher.postgres.connect import connect
from backend_watcher.probes import ProbeError

from .street import App, Street, eventually

FAILOVER_SINCE = 170_000


async def test_the_publication_comes_before_the_slot(app: App, street: Street) -> None:
    async with App.connected(app.dsn) as other:
        # A slot waits for every open transaction; so there is time to look.
        await other.run("BEGIN", "CREATE TABLE open (id int)")
        task = asyncio.create_task(street.source().run())
        await eventually(lambda: app.ask("SELECT 1 FROM pg_publication WHERE pubname = %s", street.slot))
        assert await app.confirmed(street.slot) == 0
        assert not task.done()
        await other.run("COMMIT")
        await eventually(lambda: app.confirmed(street.slot))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_only_the_tables_asked_for_are_published_and_the_slot_fails_over(app: App, street: Street) -> None:
    await app.run("CREATE TABLE orders (id int PRIMARY KEY)", "CREATE TABLE secret (id int PRIMARY KEY)")
    street.change(tables=("products", "orders"))
    async with street.listening():
        async with await connect(app.dsn, purpose="test") as connection:
            publication = await publications.look(connection, street.settings.publication)
            slot = await slots.look(connection, street.slot)
        assert publication is not None
        assert [table.name for table in publication.tables] == ["orders", "products"]
        assert not publication.all_tables
        assert slot is not None
        assert (slot.plugin, slot.failover, slot.temporary, slot.active) == (
            "pgoutput",
            app.connection.info.server_version >= FAILOVER_SINCE,
            False,
            True,
        )
    identity = await street.journal.identity()
    assert identity is not None
    assert (identity.slot, identity.publication) == (street.slot, street.settings.publication)
    assert identity.system_identifier == await app.ask("SELECT system_identifier::text FROM pg_control_system()")
    assert await street.journal.get_note(CREATING) is None


async def test_a_table_asked_for_later_is_added(app: App, street: Street) -> None:
    async with street.listening():
        await app.insert(1)
        await street.changes(1)
    await app.run("CREATE TABLE orders (id int PRIMARY KEY)")
    street.change(tables=("products", "orders"))
    async with street.listening():
        await app.run("INSERT INTO orders VALUES (2)")
        assert await street.keys(2) == [1, 2]


async def test_what_would_harm_the_application_creates_nothing(app: App, street: Street) -> None:
    await app.run("CREATE TABLE harmed (id int)")
    for tables, words in [(("products", "harmed"), "harmed must not be"), (("products", "misspelt"), "does not exist")]:
        street.change(tables=tables)
        error = await street.refusal()
        assert isinstance(error, PreflightFailed)
        assert words in error.message
    assert await app.ask("SELECT count(*) FROM pg_publication") == 0
    assert await app.confirmed(street.slot) == 0
    assert await street.journal.identity() is None


async def test_a_slot_made_in_a_start_that_was_cut_short_is_ours(app: App, street: Street) -> None:
    probes.arm_from_environment("capture.slot_created=error")
    assert isinstance(await street.refusal(), ProbeError)
    assert await street.journal.identity() is None
    stood = await app.confirmed(street.slot)
    assert stood > 0
    await app.insert(1)
    async with street.listening():
        await app.insert(2)
        # The slot was there when 1 was written, so it is not lost.
        assert await street.keys(2) == [1, 2]
    assert await street.journal.get_note(CREATING) is None


async def test_a_slot_of_another_start_is_not_ours_by_its_note(app: App, street: Street) -> None:
    await street.journal.set_note(CREATING, f"another_cluster/{street.slot}")
    await app.ask("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')::text", street.slot)
    assert isinstance(await street.refusal(), JournalLost)


async def test_without_its_journal_a_used_slot_stops_until_a_person_adopts_it(app: App, street: Street) -> None:
    async with street.listening():
        await app.insert(1)
        await street.changes(1)
        await eventually(lambda: confirmed_past(app, street))
    await app.insert(2)
    street.journal = fresh = MemoryJournal()
    await fresh.open()
    error = await street.refusal()
    assert isinstance(error, JournalLost)
    assert "j.db is new" in error.message
    assert await fresh.identity() is None
    street.change(adopt_slot=True)
    async with street.listening():
        assert await street.keys(1) == [2]
    street.change(adopt_slot=False)
    async with street.listening():
        await app.insert(3)
        assert await street.keys(2) == [2, 3]


async def confirmed_past(app: App, street: Street) -> bool:
    return await app.confirmed(street.slot) >= street.journal.durable_lsn


async def begun(app: App, street: Street) -> None:
    """A first run that captured one change."""
    async with street.listening():
        await app.insert(1)
        [change] = await street.changes(1)
        # With its commit: otherwise it is sent once more, and decoded by the publication of then.
        await eventually(lambda: is_durable(street, change.position.commit_lsn))


async def is_durable(street: Street, lsn: int) -> bool:
    return street.journal.durable_lsn > lsn


async def test_a_slot_dropped_while_we_were_away(app: App, street: Street) -> None:
    await begun(app, street)
    await eventually(lambda: gone(app, street))
    error = await street.refusal()
    assert isinstance(error, SlotLost)
    assert await app.confirmed(street.slot) == 0, "it must not be made again"


async def gone(app: App, street: Street) -> bool:
    if await app.walsender(street.slot) is not None:
        return False
    await app.ask("SELECT pg_drop_replication_slot(%s)::text", street.slot)
    return True


async def test_a_slot_recreated_while_we_were_away(app: App, street: Street) -> None:
    await begun(app, street)
    await eventually(lambda: gone(app, street))
    await app.insert(2)
    await app.ask("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')::text", street.slot)
    stood = await app.confirmed(street.slot)
    assert isinstance(await street.refusal(), SlotMoved)
    assert await app.confirmed(street.slot) == stood


async def test_a_slot_advanced_while_we_were_away(app: App, street: Street) -> None:
    await begun(app, street)
    await app.insert(2)
    await eventually(lambda: free(app, street))
    await app.ask("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())::text", street.slot)
    error = await street.refusal()
    assert isinstance(error, SlotMoved)
    assert [change.row["id"] for change in await street.changes(1)] == [1]


async def free(app: App, street: Street) -> bool:
    return await app.walsender(street.slot) is None


async def test_a_publication_dropped_while_we_were_away(app: App, street: Street) -> None:
    await begun(app, street)
    await app.run(f"DROP PUBLICATION {street.settings.publication}")
    assert isinstance(await street.refusal(), PublicationLost)
    # Made again by somebody, it is not there in the WAL of the time between: still not silently.
    await app.insert(2)
    await app.run(f"CREATE PUBLICATION {street.settings.publication} FOR TABLE products")
    await app.insert(3)
    assert isinstance(await street.refusal(), PublicationLost)
    assert [change.row["id"] for change in await street.changes(1)] == [1]


async def test_another_plugin_is_refused(app: App, street: Street) -> None:
    await app.ask("SELECT pg_create_physical_replication_slot(%s)::text", street.slot)
    street.change(adopt_slot=True)
    error = await street.refusal()
    await app.ask("SELECT pg_drop_replication_slot(%s)::text", street.slot)
    assert isinstance(error, SourceRefused)
    assert "plugin None" in error.message


@pytest.mark.parametrize(
    "other", [{"system_identifier": "1"}, {"timeline": 9}], ids=["another cluster", "another history"]
)
async def test_the_journal_of_another_cluster(app: App, street: Street, other: dict[str, object]) -> None:
    await begun(app, street)
    identity = await street.journal.identity()
    assert identity is not None
    foreign = MemoryJournal()
    await foreign.open()
    await foreign.save_identity(replace(identity, **other), street.journal.durable_lsn)  # type: ignore[arg-type]
    street.journal = foreign
    assert isinstance(await street.refusal(), WrongCluster)


async def test_a_server_restored_from_an_older_backup(app: App, street: Street) -> None:
    await begun(app, street)
    await street.journal.advance(1 << 60)
    await street.journal.flush()
    error = await street.refusal()
    assert isinstance(error, WrongCluster)
    assert "older backup" in error.message


async def test_the_slot_of_another_journal_is_not_read(app: App, street: Street) -> None:
    await begun(app, street)
    await app.ask("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')::text", f"{street.slot}_2")
    street.change(slot=f"{street.slot}_2")
    assert isinstance(await street.refusal(), ConfigError)


async def test_another_publication_than_the_journals_has_to_be_accepted(app: App, street: Street) -> None:
    await begun(app, street)
    other = f"{street.slot}_2"
    await app.run(f"CREATE PUBLICATION {other} FOR TABLE products")
    street.change(publication=other)
    assert isinstance(await street.refusal(), ConfigError)
    street.change(adopt_slot=True)
    async with street.listening():
        await app.insert(2)
        assert await street.keys(2) == [1, 2]
    identity = await street.journal.identity()
    assert identity is not None
    assert identity.publication == other


async def test_it_does_not_begin_where_commits_would_wait_for_it(own_server: EmbeddedPostgres) -> None:
    journal = MemoryJournal()
    await journal.open()
    async with App.connected(own_server.dsn) as app:
        await app.run("CREATE TABLE products (id int PRIMARY KEY)")
        street = Street(own_server.dsn, journal)
        for names in ("*", 'ANY 1 (standby, "backend_watcher:capture")'):
            await app.run(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'", "SELECT pg_reload_conf()")
            await eventually(lambda names=names: shows(app, names))  # type: ignore[misc]
            assert isinstance(await street.refusal(), BecameSynchronous)
        assert await app.ask("SELECT count(*) FROM pg_publication") == 0
        assert await app.ask("SELECT count(*) FROM pg_replication_slots") == 0


async def shows(app: App, names: str) -> bool:
    return bool(await app.ask("SHOW synchronous_standby_names") == names)


async def test_a_journal_on_disk_is_bound_to_its_slot(app: App, tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "j.db")
    await journal.open()
    street = Street(app.dsn, journal)
    await begun(app, street)
    first = await journal.identity()
    await journal.close()
    street.journal = again = SqliteJournal(tmp_path / "j.db")
    await again.open()
    assert await again.identity() == first
    assert isinstance(first, Identity)
    await app.insert(2)
    async with street.listening():
        assert await street.keys(2) == [1, 2]
    await again.close()
