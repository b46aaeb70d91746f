"""The outbox from triggers to journal, on a real server: order, whole transactions, restarts, what is forgotten."""

from __future__ import annotations

import asyncio
import random
import threading
from itertools import pairwise

import psycopg
import pytest

from backend_watcher import probes
from backend_watcher.capture.outbox_prepare import MARK
from backend_watcher.context import context_sql
from backend_watcher.errors import PreflightFailed, PublicationLost, SlotLost, SlotMoved, WrongCluster
from backend_watcher.events.change import Change
from backend_watcher.events.message import Message
from backend_watcher.journal import MemoryJournal
from backend_watcher.testing.chunks import read_all
from backend_watcher.testing.fakes import PATIENCE_SECONDS

from .outbox_street import OutboxStreet, install
from .street import App, eventually


@pytest.fixture
async def outbox(app: App, journal: MemoryJournal) -> OutboxStreet:
    """The table `products` and its outbox; not started."""
    await install(app.dsn, "public.products")
    return OutboxStreet(app.dsn, journal)


def told(changes: list[Change]) -> list[tuple[str, int | None]]:
    return [(one.operation, one.row["id"] if one.operation != "truncate" else None) for one in changes]


async def test_changes_come_with_their_old_rows_and_in_order(app: App, outbox: OutboxStreet) -> None:
    await app.insert(1)
    async with outbox.listening():
        await app.run(
            "BEGIN; INSERT INTO products VALUES (2, NULL, 5); UPDATE products SET stock = 6 WHERE id = 2; COMMIT",
            "UPDATE products SET id = 3 WHERE id = 2",
            "BEGIN; DELETE FROM products; ROLLBACK",
            "DELETE FROM products WHERE id = 1",
            "TRUNCATE products",
        )
        changes = await outbox.changes(6)
    assert told(changes) == [
        ("insert", 1), ("insert", 2), ("update", 2), ("update", 3), ("delete", 1), ("truncate", None)
    ]  # fmt: skip
    assert dict(changes[1].new) == {"id": 2, "name": None, "stock": 5}
    assert dict(changes[2].old) == {"id": 2, "name": None, "stock": 5}
    assert changes[3].key_before == (2,)
    assert changes[2].position.commit_lsn == changes[1].position.commit_lsn
    assert all(a.position < b.position for a, b in pairwise(changes))
    assert changes[0].event_id.split(":")[1] == "outbox"
    assert abs(changes[0].commit_time.timestamp() - (await app.ask("SELECT extract(epoch FROM now())::float8"))) < 30


async def test_what_is_said_of_a_transaction_and_in_it_comes_in_its_place(app: App, outbox: OutboxStreet) -> None:
    async with outbox.listening():
        await app.insert(1)
        await app.run("BEGIN", context_sql(user="ann"))
        await app.run("INSERT INTO products VALUES (2, NULL, 5)", "SELECT watcher.outbox_say('shop.sold', 'ü')")
        await app.run("SAVEPOINT a", context_sql(user="eve"), "INSERT INTO products VALUES (9)", "ROLLBACK TO a")
        await app.run("UPDATE products SET stock = 6 WHERE id = 2", context_sql(user="bob"))
        await app.run("DELETE FROM products WHERE id = 2", "COMMIT")
        await app.run("BEGIN", context_sql(user="ann"), "ROLLBACK")
        await app.insert(3)
        changes = await outbox.changes(6)
        # Said once, however many changes follow it.
        query = "SELECT count(*) FROM watcher.outbox WHERE old_row = 'backend_watcher.context'"
        assert await app.ask(query) == 2
    assert [dict(change.transaction.context).get("user") for change in changes] == [
        None, "ann", "ann", "ann", "bob", None
    ]  # fmt: skip
    assert [change.operation for change in changes] == ["insert", "insert", "insert", "update", "delete", "insert"]
    said = Message(changes[2])
    assert (said.prefix, said.text) == ("shop.sold", "ü")
    assert changes[1].position < said.position < changes[3].position


async def test_who_commits_late_is_not_skipped(app: App, outbox: OutboxStreet) -> None:
    async with outbox.listening(), App.connected(app.dsn) as late:
        await late.run("BEGIN")
        await late.insert(1)
        for key in (2, 3):
            await app.insert(key)
        assert await outbox.keys(2) == [2, 3]
        await late.run("COMMIT")
        assert await outbox.keys(3) == [2, 3, 1]
        await app.insert(4)
        assert await outbox.keys(4) == [2, 3, 1, 4]


async def test_after_a_stop_the_same_changes_have_the_same_positions(
    app: App, outbox: OutboxStreet, journal: MemoryJournal
) -> None:
    """Claimed, perhaps delivered, and not durable when the process ended: another journal stands for what is lost."""
    held = threading.Event()
    probes.arm("outbox.before_done", lambda: held.wait(PATIENCE_SECONDS) and None)
    async with outbox.listening():
        await app.insert(1, 2, 3)
        first = await outbox.changes(3)
        identity, mark = await journal.identity(), await journal.get_note(MARK)
        held.set()
        await app.run("UPDATE watcher.outbox_reader SET batch = 0, snapshot = '1:1:'")
    async with App.connected(app.dsn) as again:
        batches = await again.ask("SELECT count(*) FROM watcher.outbox_batch")
    assert identity is not None
    if batches == 0:
        pytest.skip("it was quicker to say that all is durable")
    fresh = MemoryJournal()
    await fresh.open()
    await fresh.save_identity(identity, first[0].position.commit_lsn)
    await fresh.set_note(MARK, mark)
    second = OutboxStreet(app.dsn, fresh)
    await app.insert(4)
    async with second.listening():
        found = await second.changes(4)
    assert [one.event_id for one in found[:3]] == [one.event_id for one in first]
    assert [dict(one.new) for one in found[:3]] == [dict(one.new) for one in first]
    await fresh.close()


async def test_what_is_durable_is_forgotten_and_nothing_before(app: App, outbox: OutboxStreet) -> None:
    outbox.quiet_seconds = 0.2
    async with outbox.listening(), App.connected(app.dsn) as late:
        await app.insert(1, 2)
        await outbox.changes(2)

        async def emptied() -> bool:
            return bool(await app.ask("SELECT count(*) = 0 FROM watcher.outbox"))

        await eventually(emptied)
        await late.run("BEGIN")
        await late.insert(3)
        await app.insert(4)
        await outbox.changes(3)
        await late.run("COMMIT")
        assert await outbox.keys(4) == [1, 2, 4, 3]
        await eventually(emptied)
    assert await app.ask("SELECT count(*) FROM watcher.outbox_batch") == 0


async def test_a_large_transaction_comes_whole_and_in_pieces(app: App, outbox: OutboxStreet) -> None:
    pieces = []
    probes.arm("outbox.piece", lambda: pieces.append(1))
    async with outbox.listening():
        await app.run("INSERT INTO products SELECT n, 'p', n FROM generate_series(1, 9000) n")
        await app.insert(9001)
        changes = await outbox.changes(9001)
    assert [one.row["id"] for one in changes] == list(range(1, 9002))
    assert len({one.position.commit_lsn for one in changes[:9000]}) == 1
    assert len(pieces) >= 4


async def test_more_transactions_than_are_listed_at_once(app: App, outbox: OutboxStreet) -> None:
    """The list is asked for in pages then, and a batch of many has one order."""
    await app.run(*[f"INSERT INTO products VALUES ({n}, 'p', {n})" for n in range(2500)])
    async with outbox.listening():
        assert await outbox.keys(2500) == list(range(2500))
        await app.insert(2500)
        changes = await outbox.changes(2501)
    assert all(a.position < b.position for a, b in pairwise(changes))


async def test_rows_keep_the_shape_they_were_written_with(app: App, outbox: OutboxStreet) -> None:
    await app.run(
        "INSERT INTO products VALUES (1, 'a', 1)",
        "ALTER TABLE products DROP COLUMN name",
        "ALTER TABLE products ADD COLUMN price numeric",
        "INSERT INTO products VALUES (2, 2, 1.50)",
        "BEGIN; INSERT INTO products VALUES (3, 3, 2.50); ALTER TABLE products ALTER stock TYPE text;"
        " ALTER TABLE products RENAME stock TO stored; INSERT INTO products VALUES (4, 'four', 3); COMMIT",
    )
    async with outbox.listening():
        rows = [dict(one.new) for one in await outbox.changes(4)]
    assert [list(row.items()) for row in rows] == [
        [("id", 1), ("name", "a"), ("stock", 1)],
        [("id", 2), ("stock", 2), ("price", rows[1]["price"])],
        [("id", 3), ("stock", 3), ("price", rows[2]["price"])],
        [("id", 4), ("stored", "four"), ("price", 3)],
    ]
    assert [str(row.get("price")) for row in rows] == ["None", "1.50", "2.50", "3"]


async def test_many_writers_a_long_one_and_restarts(app: App, outbox: OutboxStreet, dice: random.Random) -> None:
    """A short form of scenario 49: 8 writers on few keys, delays, rollbacks, a long transaction, restarts."""
    await app.run(
        "CREATE TABLE keyed (id int PRIMARY KEY, version int)",
        "INSERT INTO keyed SELECT n, 0 FROM generate_series(1, 6) n",
    )
    await install(app.dsn, "public.products", "public.keyed")
    outbox.change(tables=("public.products", "public.keyed"))
    truth: list[int] = []

    async def write(number: int) -> None:
        async with await psycopg.AsyncConnection.connect(app.dsn) as connection:
            for turn in range(12):
                keys = sorted(dice.sample(range(1, 7), dice.randint(1, 3)))
                for key in keys:
                    await connection.execute("UPDATE keyed SET version = version + 1 WHERE id = %s", [key])
                    await asyncio.sleep(0)
                await connection.execute("INSERT INTO products VALUES (%s, 'x', 0)", [number * 1000 + turn])
                await connection.execute("SELECT pg_sleep(%s)", [dice.random() * 0.02])
                if dice.random() < 0.2:
                    await connection.rollback()
                else:
                    await connection.commit()
                    truth.append(number * 1000 + turn)

    async with App.connected(app.dsn) as long:
        await long.run("BEGIN", "INSERT INTO products VALUES (-1, 'long', 0)")
        writers = asyncio.gather(*(write(number) for number in range(8)))
        for _ in range(3):
            async with outbox.listening():
                before = outbox.journal.last_position
                await outbox.observer.wait_for(lambda before=before: outbox.journal.last_position > before)
        await writers
        await long.run("COMMIT")
    truth.append(-1)
    versions = dict(await (await app.connection.execute("SELECT id, version FROM keyed")).fetchall())
    count = len(truth) + sum(versions.values())
    async with outbox.listening():
        changes = await outbox.changes(count)
    assert sorted(one.row["id"] for one in changes if one.table.name == "products") == sorted(truth)
    for key, last in versions.items():
        seen = [one.row["version"] for one in changes if one.table.name == "keyed" and one.row["id"] == key]
        assert seen == list(range(1, last + 1)), "a key's changes in commit order"


async def test_without_an_outbox_nothing_begins(app: App, journal: MemoryJournal) -> None:
    error = await OutboxStreet(app.dsn, journal).refusal()
    assert isinstance(error, PreflightFailed)
    assert "watcher outbox install" in error.remedy


@pytest.mark.parametrize(
    "deed",
    [
        'DROP TRIGGER "0_watcher_outbox" ON products',
        'ALTER TABLE products DISABLE TRIGGER "0_watcher_outbox"',
        'DROP TRIGGER "0_watcher_outbox_truncate" ON products',
        "DROP TABLE products; CREATE TABLE products (id bigint PRIMARY KEY, name text, stock int)",
    ],
)
async def test_a_trigger_that_is_gone_stops_at_once_and_at_the_next_start(
    app: App, outbox: OutboxStreet, deed: str
) -> None:
    outbox.watch_seconds = 0.05
    async with outbox.listening():
        await app.run(deed)
        error = await outbox.failure()
    assert isinstance(error, PublicationLost)
    assert "products" in error.message
    await install(app.dsn, "public.products")
    if "DROP TRIGGER" in deed:
        # Made again it is another one: rows may have been missed.
        assert isinstance(await outbox.refusal(), PublicationLost)
        outbox.change(adopt_slot=True)
    async with outbox.listening():
        await app.insert(7)
        assert await outbox.keys(1) == [7]


async def test_one_outbox_has_one_reader(app: App, outbox: OutboxStreet) -> None:
    async with outbox.listening():
        other = MemoryJournal()
        await other.open()
        second = OutboxStreet(app.dsn, other)
        second.task = asyncio.create_task(second.source().run())
        await second.reach("waiting")
        (waits,) = [told.detail for told in second.observer.told if getattr(told, "state", "") == "waiting"]
        assert "the outbox is read by 'backend_watcher:outbox', pid" in waits
        second.task.cancel()
        await other.close()
        await app.insert(1)
        assert await outbox.keys(1) == [1]


async def test_a_lock_of_a_stranger_does_not_count(app: App, outbox: OutboxStreet) -> None:
    await app.run("CREATE ROLE stranger LOGIN PASSWORD 'x'")
    try:
        key = await app.ask("SELECT hashtextextended(outbox::text, 0) FROM watcher.outbox_reader")
        address = app.dsn.rpartition("@")[2]
        async with App.connected(f"postgresql://stranger:x@{address}") as stranger:
            await stranger.ask("SELECT pg_advisory_lock(%s)", key)
            async with outbox.listening():
                await app.insert(1)
                assert await outbox.keys(1) == [1]
    finally:
        await app.run("DROP ROLE stranger")


async def test_a_new_journal_does_not_go_on_by_itself(app: App, outbox: OutboxStreet) -> None:
    async with outbox.listening():
        await app.insert(1)
        await outbox.changes(1)
    other = MemoryJournal()
    await other.open()
    second = OutboxStreet(app.dsn, other)
    assert "another journal" in str(await second.refusal())
    second.change(adopt_slot=True)
    async with second.listening():
        await app.insert(2)
        await eventually(lambda: read_all(other))
    assert isinstance(await outbox.refusal(), SlotMoved)
    await other.close()


async def test_an_outbox_that_was_made_again_is_noticed(app: App, outbox: OutboxStreet) -> None:
    async with outbox.listening():
        await app.insert(1)
        await outbox.changes(1)
    await app.run(
        "DROP FUNCTION watcher.outbox_write() CASCADE; DROP TABLE watcher.outbox_reader, watcher.outbox_batch,"
        " watcher.outbox, watcher.outbox_shape"
    )
    assert isinstance(await outbox.refusal(), PublicationLost)
    await install(app.dsn, "public.products")
    assert isinstance(await outbox.refusal(), PublicationLost | SlotLost)


async def test_an_outbox_that_was_copied_here_is_refused(app: App, outbox: OutboxStreet) -> None:
    await app.run("UPDATE watcher.outbox_reader SET snapshot = '9000000:9000000:'")
    assert isinstance(await outbox.refusal(), WrongCluster)
    await app.run("UPDATE watcher.outbox_reader SET snapshot = '1:1:', cluster = '7'")
    assert isinstance(await outbox.refusal(), WrongCluster)


async def test_a_broken_connection_is_made_again(app: App, outbox: OutboxStreet) -> None:
    async with outbox.listening():
        await app.insert(1)
        await outbox.changes(1)
        await app.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'backend_watcher%'"
        )
        await app.insert(2)
        assert await outbox.keys(2) == [1, 2]
        assert "waiting" in outbox.observer.states
