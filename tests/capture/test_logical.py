"""The stream on a real server: what arrives, what is confirmed, and what happens when something breaks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from backend_watcher import probes
from backend_watcher.capture import logical, undecodable
from backend_watcher.capture.undecodable import Undecodable
from backend_watcher.contracts import Journal
from backend_watcher.errors import JournalBroken, PublicationLost, SlotMoved, SourceRefused
from backend_watcher.events.position import START, Position, parse_lsn
from backend_watcher.journal import MemoryJournal, SqliteJournal
from backend_watcher.postgres.replication import ReplicationStream
from backend_watcher.testing.chunks import ids, read_all
from backend_watcher.testing.fakes import Captured
from backend_watcher.threads import LoopThread
from skips import needs

from .street import App, Street, eventually

Confirmed = tuple[int, int, int, int]

OpenJournal = Callable[[], Awaitable[Journal]]


@pytest.fixture(params=["memory", "sqlite"])
def open_journal(request: pytest.FixtureRequest, tmp_path: Path) -> OpenJournal:
    """Opens the same journal again and again, as a watcher that is started again and again."""
    memory = MemoryJournal()

    async def open_it() -> Journal:
        journal = memory if request.param == "memory" else SqliteJournal(tmp_path / "j.db")
        await journal.open()
        return journal

    return open_it


@asynccontextmanager
async def life(app: App, street: Street, open_journal: OpenJournal) -> AsyncIterator[Street]:
    """One run of a watcher: the journal is opened, the source runs, both end."""
    street.journal = await open_journal()
    try:
        async with street.listening():
            yield street
    finally:
        await street.journal.close()


async def test_every_operation_arrives_in_commit_order(app: App, street: Street) -> None:
    await app.run("ALTER TABLE products REPLICA IDENTITY FULL", "CREATE TABLE other (id int PRIMARY KEY)")
    async with street.listening():
        await app.run(
            "BEGIN; INSERT INTO products VALUES (1, 'pen', 5); INSERT INTO other VALUES (1);"
            "UPDATE products SET stock = 4; UPDATE products SET id = 2; COMMIT",
            "BEGIN; INSERT INTO products VALUES (9); ROLLBACK",
            "DELETE FROM products",
            "TRUNCATE products",
        )
        changes = await street.changes(5)
    assert [change.operation.value for change in changes] == ["insert", "update", "update", "delete", "truncate"]
    insert, update, rekey, delete, truncate = changes
    assert insert.row.to_dict() == {"id": 1, "name": "pen", "stock": 5}
    assert update.changed_columns() == {"stock"}
    assert (rekey.key_before, rekey.key, delete.key, truncate.key) == ((1,), (2,), (2,), ())
    assert len({change.event_id for change in changes}) == 5
    assert insert.event_id.split(":")[1] == street.slot
    assert captured(street) == 5
    assert all(told.size_bytes > 0 for told in street.observer.told if isinstance(told, Captured))


async def test_a_restart_goes_on_with_nothing_lost_or_doubled(
    app: App, street: Street, open_journal: OpenJournal
) -> None:
    for round_number in range(5):
        async with life(app, street, open_journal):
            await app.insert(3 * round_number + 1)
            await app.insert(3 * round_number + 2)
            assert await street.keys(3 * round_number + 2) == list(range(1, 3 * round_number + 3))
        await app.insert(3 * round_number + 3)
    async with life(app, street, open_journal):
        assert await street.keys(15) == list(range(1, 16))


@pytest.mark.parametrize("enough", [1, 10_000])
async def test_a_connection_cut_in_the_middle_of_a_transaction(
    app: App, street: Street, open_journal: OpenJournal, enough: int
) -> None:
    rows = 60_000
    with cutting(app.dsn, street, enough):
        async with life(app, street, open_journal):
            await app.run(f"INSERT INTO products SELECT g, repeat('x', 200), g FROM generate_series(1, {rows}) g")
            await street.reach("waiting")
            part = len(await read_all(street.journal))
            assert 0 < part < rows
            await app.insert(rows + 1)
            assert await street.keys(rows + 1) == list(range(1, rows + 2))
            assert street.observer.states == ["connecting", "streaming", "waiting", "connecting", "streaming"]


def captured(street: Street) -> int:
    """How many changes went to the journal."""
    return sum(told.changes for told in street.observer.told if isinstance(told, Captured))


def cutting(dsn: str, street: Street, enough: int) -> Any:
    """Let the server end our walsender, once, when that many changes are in the journal."""
    admin = psycopg.connect(dsn, autocommit=True)

    def look() -> None:
        if captured(street) >= enough:
            probes.disarm()
            admin.execute(
                "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots WHERE slot_name = %s",
                [street.slot],
            )

    probes.arm("capture.received", look)
    return admin


async def test_cut_again_and_again_while_the_application_writes(
    app: App, street: Street, open_journal: OpenJournal
) -> None:
    async with life(app, street, open_journal):
        for cut in range(1, 4):
            await app.insert(*range(20 * cut - 19, 20 * cut - 9))
            await app.cut(street.slot)
            await app.insert(*range(20 * cut - 9, 20 * cut + 1))
            await street.reach("streaming", cut + 1)
        assert await street.keys(60) == list(range(1, 61))


async def test_what_an_earlier_connection_left_in_the_queue_is_not_taken_twice(
    app: App, street: Street, journal: MemoryJournal
) -> None:
    async with street.listening():
        journal.hold()
        await app.insert(1, 2, 3)
        await street.observer.wait_for(lambda: captured(street) == 3)
        await app.cut(street.slot)
        await street.reach("streaming", 2)
        # They can be read, and are not durable: the server sends them again.
        assert (len(await read_all(journal)), journal.last_position) == (3, START)
        journal.release()
        await app.insert(4)
        assert await street.keys(4) == [1, 2, 3, 4]


async def test_a_commit_that_comes_apart_from_its_rows_is_confirmed_all_the_same(
    app: App, street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logical, "RECEIVE_BYTES", 1)
    async with street.listening():
        await app.run("INSERT INTO products VALUES (1), (2), (3)")
        assert await street.keys(3) == [1, 2, 3]
        [commit] = {change.position.commit_lsn for change in await street.changes(3)}
        # The commit ends behind where it begins.
        await eventually(lambda: passed(app, street, commit + 1))


async def test_the_publication_dropped_under_a_running_stream(app: App, street: Street) -> None:
    async with street.listening():
        await app.insert(1)
        await street.changes(1)
        await app.run(f"DROP PUBLICATION {street.settings.publication}")
        await app.insert(2)
        error = await street.failure()
    assert isinstance(error, PublicationLost)
    # The walsender says so, or the first look around the stream where that one is late.
    assert any(words in error.message for words in ("cannot load the publication", "it was dropped"))
    assert ids(await street.changes(1)) == [1]
    await eventually(lambda: app.ask("SELECT NOT active FROM pg_replication_slots WHERE slot_name = %s", street.slot))
    assert await app.confirmed(street.slot) <= street.journal.durable_lsn


@pytest.mark.parametrize("statement", ["DROP PUBLICATION {}", "ALTER PUBLICATION {} DROP TABLE orders"])
async def test_a_lost_table_is_seen_without_any_row(app: App, street: Street, statement: str) -> None:
    await app.run("CREATE TABLE orders (id int PRIMARY KEY)")
    street.change(tables=("products", "orders"))
    street.watch_seconds = 0.05
    async with street.listening():
        await app.run(statement.format(street.settings.publication))
        error = await street.failure()
    assert isinstance(error, PublicationLost)


async def test_a_table_dropped_by_its_owner_is_no_loss(app: App, street: Street) -> None:
    await app.run("CREATE TABLE orders (id int PRIMARY KEY)")
    street.change(tables=("products", "orders"))
    street.watch_seconds = 0.02
    async with street.listening():
        await app.run("INSERT INTO orders VALUES (1)", "DROP TABLE orders")
        for number in range(2, 12):
            await app.insert(number)
            await street.changes(number)


async def test_what_the_server_cannot_decode_is_told_and_waited_for(app: App, street: Street) -> None:
    needs(15, "a row filter", app.connection.info.server_version)
    # A row filter that divides by zero: the application may write it, nobody can decode it.
    await app.run(f"CREATE PUBLICATION {street.settings.publication} FOR TABLE products WHERE (10 / id > 0)")
    async with street.listening():
        await app.insert(1)
        await street.changes(1)
        await app.insert(0)
        await street.reach(undecodable.STATE)
    stuck = Undecodable.from_note(await street.journal.get_note(undecodable.NOTE))
    assert stuck is not None
    assert "division by zero" in stuck.said


async def test_a_broken_journal_ends_it(app: App, street: Street) -> None:
    street.journal = journal = MemoryJournal()
    await journal.open()
    async with street.listening():
        journal.fail()
        await app.insert(1)
        assert isinstance(await street.failure(), JournalBroken)


@pytest.fixture
def confirmations(monkeypatch: pytest.MonkeyPatch, street: Street) -> Iterator[list[Confirmed]]:
    """All feedback as it went out: write, flush, apply, and how much was durable at that moment."""
    sent: list[Confirmed] = []
    confirm = ReplicationStream.confirm

    def record(self: ReplicationStream, write: int, flush: int, apply: int) -> None:
        sent.append((write, flush, apply, street.journal.durable_lsn))
        confirm(self, write, flush, apply)

    monkeypatch.setattr(ReplicationStream, "confirm", record)
    yield sent
    assert all(apply <= flush <= durable for _, flush, apply, durable in sent)
    assert all(flush <= write for write, flush, _, _ in sent)
    assert [flush for _, flush, _, _ in sent] == sorted(flush for _, flush, _, _ in sent)


async def test_nothing_is_confirmed_that_is_not_durable(
    app: App, street: Street, journal: MemoryJournal, confirmations: list[Confirmed]
) -> None:
    street.change(dsn=f"{app.dsn}?options=-c%20wal_sender_timeout%3D600ms")
    async with street.listening():
        await app.insert(1)
        await street.changes(1)
        journal.hold()
        for number in range(2, 7):
            await app.insert(number)
        end = await app.lsn()
        # Received, and said so; three times on the server's word, never confirmed.
        for _ in range(3):
            await eventually(lambda: received(app, street, end))
            assert await app.confirmed(street.slot) <= journal.durable_lsn < end
            seen = len(confirmations)
            await eventually(lambda seen=seen: more(confirmations, seen))  # type: ignore[misc]
        assert ids(await read_all(journal)) == [1, 2, 3, 4, 5, 6]
        journal.release()
        await eventually(lambda: passed(app, street, end))
        assert await street.keys(6) == [1, 2, 3, 4, 5, 6]


async def more(confirmations: list[Confirmed], seen: int) -> bool:
    return len(confirmations) > seen


async def received(app: App, street: Street, lsn: int) -> bool:
    pid = await app.walsender(street.slot)
    text = await app.ask("SELECT write_lsn::text FROM pg_stat_replication WHERE pid = %s", pid)
    return parse_lsn(text or "0/0") >= lsn


async def passed(app: App, street: Street, lsn: int) -> bool:
    return await app.confirmed(street.slot) >= lsn


async def test_the_slowest_subscription_is_what_the_server_shows_as_replayed(
    app: App, street: Street, journal: MemoryJournal, confirmations: list[Confirmed]
) -> None:
    async with street.listening():
        await app.insert(1, 2, 3)
        first, _, last = [change.position for change in await street.changes(3)]
        journal.save_cursor("fast", last)
        journal.save_cursor("slow", first)
        await app.insert(4)
        await street.changes(4)
        await eventually(lambda: replayed(app, street, first))
        journal.save_cursor("slow", last)
        journal.save_cursor("fast", Position(1 << 60, 0))
        await eventually(lambda: replayed(app, street, last))
    assert confirmations


async def replayed(app: App, street: Street, at: Position) -> bool:
    pid = await app.walsender(street.slot)
    text = await app.ask("SELECT replay_lsn::text FROM pg_stat_replication WHERE pid = %s", pid)
    return parse_lsn(text or "0/0") == at.commit_lsn


async def test_what_others_write_is_confirmed_when_nothing_is_owed(app: App, street: Street) -> None:
    street.change(dsn=f"{app.dsn}?options=-c%20wal_sender_timeout%3D600ms")
    await app.run("CREATE TABLE other (id int)")
    async with street.listening():
        for _ in range(3):
            await app.run("INSERT INTO other SELECT generate_series(1, 1000)")
            end = await app.lsn()
            await eventually(lambda end=end: passed(app, street, end))  # type: ignore[misc]
        assert await read_all(street.journal) == []
        assert street.journal.durable_lsn >= end


async def test_a_heartbeat_moves_an_idle_slot(app: App, street: Street) -> None:
    street.change(heartbeat_seconds=0.05)
    async with street.listening():
        for _ in range(3):
            stood = await app.confirmed(street.slot)
            await eventually(lambda stood=stood: passed(app, street, stood + 1))  # type: ignore[misc]
        assert await read_all(street.journal) == []


async def test_a_mark_moves_an_idle_journal_at_once(app: App, street: Street) -> None:
    async with street.listening():
        for _ in range(3):
            lsn = parse_lsn(await app.ask("SELECT pg_logical_emit_message(true, 'backend_watcher.mark', '')::text"))
            # The timer would take ten seconds.
            await eventually(lambda lsn=lsn: passed(app, street, lsn), 5.0)  # type: ignore[misc]
        assert await read_all(street.journal) == []


async def test_a_journal_that_takes_nothing_does_not_cost_the_connection(app: App, street: Street) -> None:
    street.journal = journal = MemoryJournal(quota_bytes=2000)
    await journal.open()
    journal.save_cursor("slow", Position(0, -1))
    street.change(dsn=f"{app.dsn}?options=-c%20wal_sender_timeout%3D2s")
    async with street.listening():
        pid = await app.walsender(street.slot)
        await app.run("INSERT INTO products SELECT g, repeat('x', 200) FROM generate_series(1, 2000) g")
        journal.hold()
        await app.run("INSERT INTO products SELECT g, repeat('x', 200) FROM generate_series(2001, 9000) g")
        await eventually(lambda: held_for(app, "5 seconds", pid))
        assert await app.walsender(street.slot) == pid
        assert street.observer.states == ["connecting", "streaming"]


async def held_for(app: App, interval: str, pid: int | None) -> bool:
    """Say that the walsender is older than that, and hears of us all the same."""
    query = """SELECT reply_time - backend_start > %s::interval AND now() - reply_time < '2 seconds'
               FROM pg_stat_replication WHERE pid = %s"""
    return bool(await app.ask(query, interval, pid))


async def second_reader(street: Street) -> Street:
    """Another watcher on the same slot; it has a journal of its own, and was told to adopt the slot."""
    second = Street(street.settings.dsn, MemoryJournal())
    await second.journal.open()
    second.change(slot=street.slot, publication=street.settings.publication, adopt_slot=True)
    second.task = asyncio.create_task(second.source().run())
    await second.reach("waiting")
    assert "is active for PID" in second.observer.told[-1].detail  # type: ignore[union-attr]
    return second


async def test_the_second_reader_of_a_slot_waits_for_the_first(
    app: App, street: Street, journal: MemoryJournal
) -> None:
    async with street.listening():
        journal.hold()
        await app.insert(1)
        second = await second_reader(street)
        await second.reach("waiting", 2)
        assert "streaming" not in second.observer.states
    await second.reach("streaming")
    assert await second.keys(1) == [1]
    task, second.task = second.task, None
    assert task is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_second_reader_stops_when_the_first_has_moved_the_slot(app: App, street: Street) -> None:
    async with street.listening():
        second = await second_reader(street)
        await app.insert(1)
        await street.changes(1)
        await eventually(lambda: passed(app, street, street.journal.durable_lsn))
        # What the first one took is not in the second one's journal.
        assert isinstance(await second.failure(), SlotMoved)
    assert "streaming" not in second.observer.states


async def test_our_own_session_that_the_server_has_not_missed_is_ended(
    app: App, street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[ReplicationStream] = []
    close = ReplicationStream.close

    async def leave_open(self: ReplicationStream) -> None:
        # The network is dark: the server never hears that we left.
        opened.append(self)

    async with street.listening():
        await app.insert(1)
        await street.changes(1)
        first = await app.walsender(street.slot)
        monkeypatch.setattr(ReplicationStream, "close", leave_open)
        control = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%%:control'"
        await app.ask(f"{control} AND datname = current_database()")
        await street.reach("waiting")
        monkeypatch.setattr(ReplicationStream, "close", close)
        await app.insert(2)
        await street.reach("streaming", 2)
        assert await street.keys(2) == [1, 2]
        assert await app.walsender(street.slot) != first
    assert opened
    for stream in opened:
        await stream.close()


async def test_a_server_that_is_not_there_is_waited_for(app: App, street: Street) -> None:
    street.change(dsn="postgresql://nobody@127.0.0.1:1/none")
    street.task = asyncio.create_task(street.source().run())
    await street.reach("waiting", 2)
    assert street.observer.states[:3] == ["connecting", "waiting", "connecting"]
    task, street.task = street.task, None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_wrong_password_is_not_tried_again(app: App, street: Street) -> None:
    head, _, tail = app.dsn.rpartition("@")
    street.change(dsn=f"{head}wrong@{tail}")
    assert isinstance(await street.refusal(), SourceRefused)
    assert street.observer.states == ["connecting"]


async def test_a_handler_that_blocks_its_loop_does_not_hold_up_capture(app: App, street: Street) -> None:
    street.change(dsn=f"{app.dsn}?options=-c%20wal_sender_timeout%3D500ms")
    capture = LoopThread("capture", logical.LogicalSource(street.settings, street.journal, street.observer).run)
    capture.start()
    await street.observer.wait_for(lambda: "streaming" in street.observer.states)
    pid = await app.walsender(street.slot)
    await app.insert(1)
    # The very thread of this test stands still, four times as long as the server is patient.
    threading.Event().wait(2.0)
    assert await app.walsender(street.slot) == pid
    assert street.observer.states == ["connecting", "streaming"]
    assert await street.keys(1) == [1]
    await capture.stop()
    assert await capture.finished is None
