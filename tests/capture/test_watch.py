"""What a running stream would not say: looked for on a real server."""

from __future__ import annotations

import time

import pytest

from backend_watcher.capture import logical
from backend_watcher.capture.drift import Coverage
from backend_watcher.capture.prepare import PUBLISHED
from backend_watcher.errors import PublicationLost
from backend_watcher.testing.fakes import SourceState
from skips import needs

from .street import NEVER, App, Street, eventually

GLANCE = 0.05

LOSSES = {
    "a table taken out": "ALTER PUBLICATION {p} DROP TABLE products",
    "taken out and put back": "ALTER PUBLICATION {p} DROP TABLE products; ALTER PUBLICATION {p} ADD TABLE products",
    "a row filter": "ALTER PUBLICATION {p} SET TABLE products WHERE (stock > 5)",
    "a column list": "ALTER PUBLICATION {p} SET TABLE products (id, name)",
    "operations": "ALTER PUBLICATION {p} SET (publish = 'insert')",
    "altered and altered back": (
        "ALTER PUBLICATION {p} SET (publish = 'insert');"
        " ALTER PUBLICATION {p} SET (publish = 'insert, update, delete, truncate')"
    ),
    "the root's name": "ALTER PUBLICATION {p} SET (publish_via_partition_root = false)",
    "made again": "DROP PUBLICATION {p}; CREATE PUBLICATION {p} FOR TABLE products",
    "renamed": "ALTER PUBLICATION {p} RENAME TO {p}_2",
}


@pytest.mark.parametrize("statements", LOSSES.values(), ids=LOSSES.keys())
async def test_what_may_leave_out_rows_ends_it(app: App, street: Street, statements: str) -> None:
    skip_unless_known(app, statements)
    street.watch_seconds = GLANCE
    async with street.listening():
        await eventually(lambda: looked(street))
        await app.run(*statements.format(p=street.settings.publication).split(";"))
        error = await street.failure()
    assert isinstance(error, PublicationLost)
    assert "--adopt-slot" in error.remedy


def skip_unless_known(app: App, statements: str) -> None:
    if "WHERE" in statements or "(id, name)" in statements:
        needs(15, "a row filter or column list", app.connection.info.server_version)


async def looked(street: Street) -> bool:
    return "streaming" in street.observer.states


@pytest.mark.parametrize("statements", LOSSES.values(), ids=LOSSES.keys())
async def test_and_what_was_changed_while_nobody_watched_is_not_gone_over(
    app: App, street: Street, statements: str
) -> None:
    skip_unless_known(app, statements)
    async with street.listening():
        await app.insert(1)
        await street.changes(1)
    await app.run(*statements.format(p=street.settings.publication).split(";"))
    error = await street.refusal()
    assert isinstance(error, PublicationLost), error
    if "RENAME" not in statements:
        # A person may accept it.
        street.change(adopt_slot=True)
        async with street.listening():
            pass
        street.change(adopt_slot=False)
        async with street.listening():
            pass


async def test_what_leaves_out_nothing_goes_on(app: App, street: Street) -> None:
    street.watch_seconds = GLANCE
    publication = street.settings.publication
    async with street.listening():
        await app.run(
            "CREATE TABLE more (id int PRIMARY KEY)",
            f"ALTER PUBLICATION {publication} ADD TABLE more",
            "CREATE ROLE somebody_else SUPERUSER",
            f"ALTER PUBLICATION {publication} OWNER TO somebody_else",
        )
        for number in range(1, 8):
            await app.insert(number)
            await street.changes(number)
        # What was explained is what the next look, and the next start, compare with.
        await eventually(lambda: noted(app, street))
    async with street.listening():
        assert await street.keys(7) == [1, 2, 3, 4, 5, 6, 7]
    await app.run(f"ALTER PUBLICATION {publication} OWNER TO CURRENT_USER", "DROP ROLE somebody_else")


async def noted(app: App, street: Street) -> bool:
    owner = await app.ask("SELECT oid::bigint FROM pg_roles WHERE rolname = 'somebody_else'")
    coverage = Coverage.from_note(await street.journal.get_note(PUBLISHED))
    return coverage is not None and coverage.publication.owner == owner


async def test_a_notice_of_the_server_makes_it_look_at_once(app: App, street: Street) -> None:
    street.watch_seconds = NEVER
    async with street.listening():
        await app.insert(1)
        await street.changes(1)
        await app.run(f"ALTER PUBLICATION {street.settings.publication} DROP TABLE products")
        assert street.task is not None
        # The walsender is told to speak; nothing is wrong with what it says.
        await app.run("ALTER SYSTEM SET client_min_messages = 'debug1'", "SELECT pg_reload_conf()")
        try:
            await app.run("CREATE TABLE other (id int)")
            assert isinstance(await street.failure(), PublicationLost)
        finally:
            await app.run("ALTER SYSTEM RESET client_min_messages", "SELECT pg_reload_conf()")


async def test_wal_that_is_held_back_is_told_once_and_when_it_is_over(app: App, street: Street) -> None:
    street.watch_seconds = GLANCE
    street.change(max_wal_bytes=4 << 20)
    async with App.connected(app.dsn) as other, street.listening():
        # The slot is held where the oldest open transaction began.
        await other.run("BEGIN", "INSERT INTO products VALUES (1)")
        await app.run("CREATE TABLE wide (t text)")
        for megabytes, state in ((3, "wal_warning"), (3, "wal_alarm")):
            await app.run(f"INSERT INTO wide SELECT repeat('x', 1000) FROM generate_series(1, {megabytes * 1000})")
            await street.reach(state)
        told = [one for one in street.observer.told if isinstance(one, SourceState) and one.state == "wal_alarm"]
        assert "of source.max_wal_bytes" in told[0].detail
        await other.run("COMMIT")
        await app.run("CHECKPOINT")
        await eventually(lambda: moved(app, street))
        await street.reach("streaming", 2)
        assert street.observer.states.count("wal_alarm") == 1


async def moved(app: App, street: Street) -> bool:
    # A checkpoint writes which transactions run, and that lets the slot move on.
    await app.run("CHECKPOINT", "SELECT pg_logical_emit_message(true, 'x', 'y')")
    return street.observer.states.count("streaming") > 1


async def test_a_network_that_brings_nothing_is_given_up(
    app: App, street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logical, "CONTROL_SECONDS_MAX", 0.5)
    street.watch_seconds = GLANCE
    async with App.connected(app.dsn) as other, street.listening():
        await app.insert(1)
        await street.changes(1)
        # A look that waits for a lock is one that is not answered.
        await other.run("BEGIN", "LOCK pg_publication IN ACCESS EXCLUSIVE MODE")
        begun = time.monotonic()
        await street.reach("waiting")
        assert time.monotonic() - begun < 5
        await other.run("ROLLBACK")
        await street.reach("streaming", 2)
