"""Transactions that a real server sends while they are in progress: in parts, undone in part, cut, too large."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from backend_watcher import probes
from backend_watcher.capture import intake
from backend_watcher.capture.prepare import LogicalSettings
from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.events.change import Change
from backend_watcher.journal import MemoryJournal

from .street import App, Street, eventually

SMALL = {"logical_decoding_work_mem": "64kB", "max_prepared_transactions": "5"}
"""With so little memory a server sends every transaction of a few hundred rows in parts."""


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(settings=SMALL) as postgres:
        yield postgres


@pytest.fixture
def street(app: App, journal: MemoryJournal, tmp_path: Path) -> Street:
    street = Street(app.dsn, journal)
    street.change(spill_folder=tmp_path / "spill")
    return street


@pytest.fixture(autouse=True)
def parts() -> Iterator[list[int]]:
    """Counts the transactions that came in parts: without one, a test here shows nothing."""
    seen: list[int] = []
    probes.arm("capture.before_streamed", lambda: seen.append(1))
    yield seen
    assert seen


def filled(first: int, last: int, stock: int = 0) -> str:
    return f"INSERT INTO products SELECT g, repeat('x', 200), {stock} FROM generate_series({first}, {last}) g"


def ids(changes: list[Change]) -> list[int]:
    return [change.row["id"] for change in changes]


async def test_a_large_one_arrives_whole_and_in_its_place(app: App, street: Street, tmp_path: Path) -> None:
    async with street.listening(), App.connected(app.dsn) as other:
        await app.run("BEGIN", filled(1, 3000))
        await other.insert(9001)
        await app.run(filled(3001, 5000), "UPDATE products SET stock = 7 WHERE id = 1", "COMMIT")
        await other.insert(9002)
        changes = await street.changes(5003)
    assert ids(changes) == [9001, *range(1, 5001), 1, 9002]
    assert changes[-2].row["stock"] == 7
    large = changes[1:-1]
    assert len({change.transaction.xid for change in large}) == 1
    assert [change.position.ordinal for change in large] == list(range(5001))
    assert not (tmp_path / "spill").exists()


async def test_what_a_savepoint_undid_is_not_there(app: App, street: Street) -> None:
    async with street.listening():
        await app.run(
            "BEGIN",
            filled(1, 2),
            "SAVEPOINT a",
            filled(1000, 3000),
            "SAVEPOINT b",
            filled(4000, 4500),
            "RELEASE b",
            "ROLLBACK TO a",
            filled(3, 4),
            "SAVEPOINT c",
            filled(5000, 6000),
            "RELEASE c",
            "SAVEPOINT d",
            filled(7000, 7500),
            "ROLLBACK TO d",
            filled(5, 5),
            "COMMIT",
        )
        changes = await street.changes(2 + 2 + 1001 + 1)
    assert ids(changes) == [1, 2, 3, 4, *range(5000, 6001), 5]


async def test_a_loop_with_an_exception_in_each_turn(app: App, street: Street) -> None:
    loop = """
        DO $$ BEGIN
            FOR n IN 1..600 LOOP
                BEGIN
                    INSERT INTO products VALUES (n, repeat('x', 2000), n);
                    IF n % 3 = 0 THEN RAISE division_by_zero; END IF;
                EXCEPTION WHEN division_by_zero THEN NULL;
                END;
            END LOOP;
        END $$"""
    async with street.listening():
        await app.run(loop)
        changes = await street.changes(400)
    assert ids(changes) == [n for n in range(1, 601) if n % 3]


async def test_what_is_rolled_back_never_comes_and_leaves_nothing(app: App, street: Street, tmp_path: Path) -> None:
    async with street.listening():
        await app.run("BEGIN", filled(1, 3000))
        spill = tmp_path / "spill"

        async def there() -> bool:
            return spill.exists()

        async def gone() -> bool:
            return not spill.exists()

        await eventually(there)
        await app.run("ROLLBACK")
        await eventually(gone)
        await app.run(filled(9001, 9600))
        assert ids(await street.changes(600)) == list(range(9001, 9601))


async def test_a_table_that_changes_within_it(app: App, street: Street) -> None:
    async with street.listening():
        await app.run(
            "BEGIN",
            filled(1, 1000),
            "ALTER TABLE products ADD COLUMN colour text DEFAULT 'red'",
            "INSERT INTO products SELECT g, 'n', 0, 'blue' FROM generate_series(2001, 2600) g",
            "SAVEPOINT a",
            "ALTER TABLE products DROP COLUMN stock",
            "INSERT INTO products SELECT g, 'n', 'gone' FROM generate_series(3001, 3600) g",
            "ROLLBACK TO a",
            "INSERT INTO products SELECT g, 'n', 5, 'green' FROM generate_series(4001, 4600) g",
            "COMMIT",
            "INSERT INTO products VALUES (9001, 'n', 6, 'black')",
        )
        changes = await street.changes(1000 + 600 + 600 + 1)
    assert ids(changes) == [*range(1, 1001), *range(2001, 2601), *range(4001, 4601), 9001]
    assert "colour" not in changes[999].row.to_dict()
    assert [changes[at].row["colour"] for at in (1000, 1600, -1)] == ["blue", "green", "black"]


async def test_two_at_once_come_in_the_order_of_their_commits(app: App, street: Street) -> None:
    async with street.listening(), App.connected(app.dsn) as other:
        await app.run("BEGIN")
        await other.run("BEGIN")
        for turn in range(4):
            await app.run(filled(1 + 1000 * turn, 1000 + 1000 * turn))
            await other.run(filled(100_001 + 1000 * turn, 101_000 + 1000 * turn))
        await other.run("COMMIT")
        await app.run("COMMIT")
        changes = await street.changes(8000)
    assert ids(changes) == [*range(100_001, 104_001), *range(1, 4001)]


async def test_cut_in_the_middle_it_is_sent_again(app: App, street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "PIECE_BYTES", 50_000)
    pieces = 0

    def cut() -> None:
        nonlocal pieces
        pieces += 1
        if pieces == 3:
            with psycopg.connect(app.dsn, autocommit=True) as admin:
                admin.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")

    probes.arm("capture.streamed_piece", cut)
    async with street.listening():
        await app.run("BEGIN", filled(1, 2000))
        await app.cut(street.slot)
        await street.reach("streaming", 2)
        await app.run(filled(2001, 4000), "COMMIT")
        assert ids(await street.changes(4000)) == list(range(1, 4001))
    assert pieces > 3


async def test_a_prepared_one_comes_at_its_commit(app: App, street: Street) -> None:
    async with street.listening(), App.connected(app.dsn) as other:
        await app.run("BEGIN", filled(1, 1500), "PREPARE TRANSACTION 'one'")
        await app.run("BEGIN", "INSERT INTO products VALUES (5001)", "PREPARE TRANSACTION 'two'")
        await app.run("BEGIN", filled(6001, 7500), "PREPARE TRANSACTION 'three'")
        await other.insert(9001)
        assert ids(await street.changes(1)) == [9001]
        await other.run("COMMIT PREPARED 'two'", "ROLLBACK PREPARED 'three'", "COMMIT PREPARED 'one'")
        assert ids(await street.changes(1502)) == [9001, 5001, *range(1, 1501)]


async def test_where_there_is_no_room_the_server_keeps_it(
    app: App, street: Street, parts: list[int], tmp_path: Path
) -> None:
    street.change(max_spill_bytes=300_000)
    async with street.listening():
        await app.run(filled(1, 600))
        await street.changes(600)
        assert parts
        await app.run(filled(1001, 6000))
        assert ids(await street.changes(5600)) == [*range(1, 601), *range(1001, 6001)]
        assert street.observer.states.count("waiting") == 1
        assert not (tmp_path / "spill").exists()


def test_settings_without_a_folder_ask_for_whole_transactions(parts: list[int]) -> None:
    assert LogicalSettings("", "s", "p", ()).spill_folder is None
    parts.append(0)
