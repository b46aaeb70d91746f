"""Rows that were already there, on a real server, while others write."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from backend_watcher import probes
from backend_watcher.capture import backfill as backfill_module
from backend_watcher.capture import pace
from backend_watcher.capture.backfill_jobs import (
    Backfill,
    BackfillState,
    add_backfills,
    load_backfills,
    wish,
)
from backend_watcher.contracts import Journal
from backend_watcher.errors import SourceUnavailable
from backend_watcher.events.change import Change, Operation
from backend_watcher.testing.chunks import read_all

from .outbox_street import OutboxStreet, install
from .street import App, Street, eventually


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill_module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(backfill_module, "RIDDLE_SECONDS", 0.05)
    monkeypatch.setattr(backfill_module, "RETRY_SECONDS", 0.05)
    for name in ("ROWS_FIRST", "ROWS_MIN", "ROWS_MAX"):
        monkeypatch.setattr(pace, name, 10)


class LateOutbox(OutboxStreet):
    """Makes its outbox when it begins to listen, as a slot is made."""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Street]:
        await install(self.settings.dsn, "public.products")
        async with super().listening():
            yield self


@pytest.fixture(params=["slot", "outbox"])
def either(request: pytest.FixtureRequest, app: App, street: Street, journal: Journal) -> Street:
    """The table `products` and a way to hear it; not started."""
    return street if request.param == "slot" else LateOutbox(app.dsn, journal)


async def ask(journal: Journal, table: str = "public.products", **wished: Any) -> int:
    (job,) = await add_backfills(journal, [Backfill(0, table, (), "test", 0.0, **wished)])
    return job.number


def meanwhile(app: App, probe: str, *statements: str) -> None:
    """Let the application commit something when capture is at a probe for the first time."""
    left = list(statements)

    def act() -> None:
        if left:
            with psycopg.connect(app.dsn, autocommit=True) as connection:
                while left:
                    connection.execute(left.pop(0).encode())

    probes.arm(probe, act)


async def ended(journal: Journal, number: int) -> Backfill:
    async def look() -> Backfill | None:
        return next((one for one in await load_backfills(journal) if one.number == number and not one.is_open), None)

    found = await eventually(look)
    assert isinstance(found, Backfill)
    return found


def mirror(changes: list[Change]) -> dict[Any, dict[str, Any]]:
    """Apply changes by key, as a cache would."""
    rows: dict[Any, dict[str, Any]] = {}
    for change in changes:
        if change.key_before is not None:
            rows.pop(change.key_before, None)
        match change.operation:
            case Operation.TRUNCATE:
                rows.clear()
            case Operation.DELETE:
                rows.pop(change.key, None)
            case _:
                assert change.new is not None
                rows[change.key] = dict(change.new)
    return rows


async def source(app: App, table: str = "products") -> dict[Any, dict[str, Any]]:
    rows = await (await app.connection.execute(f"SELECT * FROM {table}".encode())).fetchall()
    return {(row[0],): {"id": row[0], "name": row[1], "stock": row[2]} for row in rows}


async def test_a_chunk_that_cannot_be_read_is_smaller_the_next_time(
    app: App, street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"ROWS_FIRST": 64, "ROWS_MIN": 1, "ROWS_MAX": 64}.items():
        monkeypatch.setattr(pace, name, value)
    asked: list[int] = []

    async def read_chunk(*arguments: Any, **more: Any) -> Any:
        asked.append(arguments[5])
        if arguments[5] > 20:
            raise SourceUnavailable("it took too long")
        return await really(*arguments, **more)

    really = backfill_module.reading.read_chunk
    monkeypatch.setattr(backfill_module.reading, "read_chunk", read_chunk)
    await app.run("INSERT INTO products SELECT n, 'p', n FROM generate_series(1, 30) n")
    async with street.listening():
        job = await ended(street.journal, await ask(street.journal))
    assert (job.state, job.rows) == (BackfillState.DONE, 30)
    assert asked[:3] == [64, 32, 16]


async def test_rows_that_were_there_come_as_reads(app: App, either: Street) -> None:
    await app.run("INSERT INTO products SELECT n, 'p' || n || E'\\t\\\\', n FROM generate_series(1, 95) n")
    await app.run("UPDATE products SET name = NULL WHERE id = 7")
    async with either.listening():
        number = await ask(either.journal)
        job = await ended(either.journal, number)
        await app.insert(1000)
        await eventually(lambda: caught_up(either, app))
    changes = await read_all(either.journal)
    assert job.state is BackfillState.DONE, job.detail
    assert (job.rows, job.stale, job.again) == (95, 0, 0)
    assert job.chunks > 1
    assert [change.operation for change in changes] == [Operation.READ] * 95 + [Operation.INSERT]
    assert mirror(changes) == await source(app)
    assert changes[0].context["backfill"] == str(number)


async def caught_up(street: Street, app: App) -> bool:
    changes = await read_all(street.journal)
    return bool(changes) and changes[-1].key == (1000,)


async def test_a_chunk_gives_way_to_what_changed_meanwhile(app: App, either: Street) -> None:
    await app.run("INSERT INTO products SELECT n, 'old', n FROM generate_series(1, 9) n")
    # It is read already, and not yet in the stream.
    meanwhile(
        app,
        "backfill.before_mark",
        "UPDATE products SET name = 'new' WHERE id = 2",
        "DELETE FROM products WHERE id = 3",
        "UPDATE products SET id = 44 WHERE id = 4",
        "INSERT INTO products VALUES (10, 'new', 10)",
    )
    async with either.listening():
        job = await ended(either.journal, await ask(either.journal))
    assert (job.state, job.rows, job.stale) == (BackfillState.DONE, 6, 3)
    assert mirror(await read_all(either.journal)) == await source(app)


async def test_a_truncate_meanwhile_has_the_chunk_read_again(app: App, either: Street) -> None:
    await app.run("INSERT INTO products SELECT n, 'old', n FROM generate_series(1, 9) n")
    meanwhile(app, "backfill.before_mark", "TRUNCATE products", "INSERT INTO products VALUES (1, 'new', 1)")
    async with either.listening():
        job = await ended(either.journal, await ask(either.journal))
    assert job.again >= 1
    assert mirror(await read_all(either.journal)) == await source(app)


async def test_an_altered_table_has_the_chunk_read_again(app: App, either: Street) -> None:
    await app.run("INSERT INTO products SELECT n, 'old', n FROM generate_series(1, 9) n")
    meanwhile(
        app,
        "backfill.before_mark",
        "ALTER TABLE products ADD colour text DEFAULT 'red'",
        "INSERT INTO products VALUES (10, 'new', 10, 'blue')",
    )
    async with either.listening():
        job = await ended(either.journal, await ask(either.journal))
    changes = await read_all(either.journal)
    assert job.again >= 1
    assert {key: row["colour"] for key, row in mirror(changes).items()} == {
        **{(n,): "red" for n in range(1, 10)},
        (10,): "blue",
    }


@asynccontextmanager
async def commits_are_seen_late(app: App) -> AsyncIterator[None]:
    """Let commits be in the stream while snapshots do not see them: they wait for a standby that is not there."""
    await app.run("ALTER SYSTEM SET synchronous_standby_names = 'ghost'", "SELECT pg_reload_conf()")
    await eventually(lambda: app.ask("SELECT current_setting('synchronous_standby_names') = 'ghost'"))
    try:
        yield
    finally:
        await app.run("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")


LATE = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query ~ '^UPDATE products'"


async def test_a_commit_that_is_seen_late_wins_over_what_was_read(app: App, street: Street) -> None:
    await app.run("INSERT INTO products SELECT n, 'old', n FROM generate_series(1, 30) n")
    committing: list[Future[None]] = []

    def commit_late() -> None:
        with psycopg.connect(app.dsn, autocommit=True) as connection:
            connection.execute("UPDATE products SET name = 'new' WHERE id = 25")

    def between_two_chunks() -> None:
        if not committing:
            committing.append(threads.submit(commit_late))
            with psycopg.connect(app.dsn, autocommit=True) as connection:
                while connection.execute(LATE).fetchone() != (1,):
                    pass

    with ThreadPoolExecutor() as threads:
        probes.arm("backfill.after_note", between_two_chunks)
        async with street.listening(), commits_are_seen_late(app):
            job = await ended(street.journal, await ask(street.journal))
            assert await app.ask(LATE) == 1
    assert (job.state, job.rows, job.stale) == (BackfillState.DONE, 29, 1)
    assert mirror(await read_all(street.journal)) == await source(app)


@asynccontextmanager
async def committed_and_unseen(app: App, street: Street, update: str) -> AsyncIterator[None]:
    """An update that the stream brings, and that other sessions do not see before this ends."""
    async with commits_are_seen_late(app):
        # A session that begins now surely knows the setting.
        other = await psycopg.AsyncConnection.connect(app.dsn, autocommit=True)
        committing = asyncio.create_task(other.execute(update))
        await eventually(lambda: read_all(street.journal))
        await eventually(lambda: app.ask(LATE))
        yield
    await committing
    await other.close()


async def test_a_commit_from_before_that_is_seen_late_is_waited_for(app: App, street: Street) -> None:
    await app.run("INSERT INTO products SELECT n, 'old', n FROM generate_series(1, 9) n")
    async with street.listening():
        async with committed_and_unseen(app, street, "UPDATE products SET name = 'new' WHERE id = 5"):
            number = await ask(street.journal)
            await eventually(lambda: waits(street.journal, number))
        job = await ended(street.journal, number)
    assert (job.state, job.detail) == (BackfillState.DONE, "")
    assert mirror(await read_all(street.journal)) == await source(app)


async def waits(journal: Journal, number: int) -> bool:
    (found,) = [one for one in await load_backfills(journal) if one.number == number]
    return "waiting for a transaction" in found.detail


async def test_a_transaction_that_was_open_before_is_waited_for(app: App, either: Street) -> None:
    """One that might have committed before anybody looked; one that waits for its application cannot have."""
    await app.run("INSERT INTO products SELECT n, 'old', n FROM generate_series(1, 9) n")
    async with either.listening(), await psycopg.AsyncConnection.connect(app.dsn) as idle:
        await idle.execute("UPDATE products SET name = 'idle' WHERE id = 1")
        job = await ended(either.journal, await ask(either.journal))
        assert job.state is BackfillState.DONE
        await idle.rollback()
        async with await psycopg.AsyncConnection.connect(app.dsn, autocommit=True) as busy:
            key = await app.ask("SELECT pg_advisory_lock(7)")
            assert key is not None
            query = "DO $$BEGIN UPDATE products SET name = 'busy' WHERE id = 2; PERFORM pg_advisory_lock(7); END$$"
            waiting = asyncio.create_task(busy.execute(query))
            await eventually(
                lambda: app.ask("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            )
            await eventually(lambda: app.ask("SELECT 1 FROM pg_stat_activity WHERE backend_xid IS NOT NULL"))
            number = await ask(either.journal)
            await eventually(lambda: waits(either.journal, number))
            await app.ask("SELECT pg_advisory_unlock(7)")
            await waiting
            job = await ended(either.journal, number)
    assert job.state is BackfillState.DONE
    assert job.detail == ""
    assert mirror(await read_all(either.journal)) == await source(app)


async def test_a_restart_goes_on_behind_the_last_durable_chunk(app: App, either: Street) -> None:
    await app.run("INSERT INTO products SELECT n, 'p', n FROM generate_series(1, 60) n")
    seen = asyncio.Event()
    reached = itertools.count(1)
    probes.arm("backfill.before_note", lambda: seen.set() if next(reached) == 3 else None)
    async with either.listening():
        number = await ask(either.journal)
        await seen.wait()
    probes.disarm()
    before = len(await read_all(either.journal))
    async with either.listening():
        job = await ended(either.journal, number)
    changes = await read_all(either.journal)
    assert job.state is BackfillState.DONE
    assert {change.key[0] for change in changes} == set(range(1, 61))
    assert 0 < before < 60
    # At most the chunk whose note was not written comes twice.
    assert 60 <= len(changes) <= 60 + before
    assert mirror(changes) == await source(app)


async def test_it_is_paused_goes_on_and_is_cancelled(app: App, street: Street) -> None:
    await app.run("INSERT INTO products SELECT n, 'p', n FROM generate_series(1, 500) n")
    async with street.listening():
        number = await ask(street.journal, rows_per_second_max=200)

        async def is_in(state: BackfillState) -> bool:
            return any(one.number == number and one.state is state for one in await load_backfills(street.journal))

        await eventually(lambda: is_in(BackfillState.RUNNING))
        await wish(street.journal, number, BackfillState.PAUSED)
        await eventually(lambda: is_in(BackfillState.PAUSED))
        await wish(street.journal, number, BackfillState.WAITING)
        await eventually(lambda: is_in(BackfillState.RUNNING))
        await wish(street.journal, number, BackfillState.CANCELLED)
        job = await ended(street.journal, number)
    assert job.state is BackfillState.CANCELLED
    assert job.ended_at is not None
    assert job.rows < 500


@pytest.mark.parametrize(
    ("wished", "expected"),
    [
        ({"where": "products.stock % 10 = 3"}, {3, 13, 23, 33, 43, 53}),
        ({"where": "false"}, set()),
        ({"keys": (("7",), ("21",), ("700",))}, {7, 21}),
    ],
)
async def test_a_condition_or_keys_choose_rows(
    app: App, street: Street, wished: dict[str, Any], expected: set[int]
) -> None:
    await app.run("INSERT INTO products SELECT n, 'p', n FROM generate_series(1, 60) n")
    async with street.listening():
        job = await ended(street.journal, await ask(street.journal, **wished))
    assert job.state is BackfillState.DONE, job.detail
    assert {change.key[0] for change in await read_all(street.journal)} == expected


@pytest.mark.parametrize(
    ("wished", "said"),
    [
        ({"where": "nonsense ="}, "syntax error"),
        ({"table": "public.nowhere"}, "is not there"),
        ({"table": "public.other"}, "is not in publication"),
    ],
)
async def test_what_cannot_be_read_fails_by_itself(app: App, street: Street, wished: dict[str, Any], said: str) -> None:
    await app.run("CREATE TABLE other (id int PRIMARY KEY)")
    async with street.listening():
        job = await ended(street.journal, await ask(street.journal, **wished))
        assert job.state is BackfillState.FAILED
        assert said in job.detail
        await app.insert(1000)
        await eventually(lambda: caught_up(street, app))


@pytest.mark.parametrize("collation", ["C", "ucs_basic", "default"])
async def test_text_keys_follow_the_servers_own_order(app: App, street: Street, collation: str) -> None:
    await app.run(
        f'CREATE TABLE words (id text COLLATE "{collation}" PRIMARY KEY, n int)',
        "INSERT INTO words SELECT chr(97 + n % 26) || chr(65 + n % 7) || E'\\\\\\t' || n, n"
        " FROM generate_series(1, 99) n",
        "INSERT INTO words VALUES ('', 0), ('Ä', 1), ('ä', 2), (E'\\n', 3)",
    )
    await whole(app, street, "words", 103)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


async def whole(app: App, street: Street, table: str, rows: int) -> list[Change]:
    """Read a table, and compare what came with what is there, as texts."""
    street.change(tables=(f"public.{table}",))
    async with street.listening():
        job = await ended(street.journal, await ask(street.journal, f"public.{table}"))
    changes = await read_all(street.journal)
    assert job.state is BackfillState.DONE, job.detail
    assert job.rows == rows == len(changes)
    async with app.connection.cursor() as cursor, cursor.copy(f"COPY (SELECT * FROM {table}) TO STDOUT") as copy:
        there = [row async for row in copy.rows()]
    texts = [tuple(_text(change.row.raw(name)) for name in change.row) for change in changes]
    assert sorted(texts) == sorted(there)
    return changes


async def test_keys_of_several_columns_and_of_strange_numbers(app: App, street: Street) -> None:
    await app.run(
        "CREATE TABLE pairs (a numeric, b float8, note text, PRIMARY KEY (a, b))",
        "INSERT INTO pairs SELECT n / 3, n % 3, 'x' FROM generate_series(1, 90) n",
        "INSERT INTO pairs VALUES ('NaN', 'NaN'), ('NaN', 'Infinity'), ('Infinity', 1), ('-Infinity', '-Infinity')",
    )
    await whole(app, street, "pairs", 94)


async def test_a_table_without_a_key_is_read_by_its_pages(app: App, street: Street, monkeypatch: Any) -> None:
    monkeypatch.setattr(pace, "PAGES_FIRST", 1)
    monkeypatch.setattr(pace, "PAGES_MAX", 1)
    await app.run(
        "CREATE TABLE log (line text)",
        "ALTER TABLE log REPLICA IDENTITY FULL",
        "INSERT INTO log SELECT repeat('x', 300) || n % 50 FROM generate_series(1, 200) n",
    )
    await whole(app, street, "log", 200)


async def test_a_partitioned_table_is_read_as_one(app: App, street: Street) -> None:
    await app.run(
        "CREATE TABLE parts (id int PRIMARY KEY, note text) PARTITION BY RANGE (id)",
        "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (50)",
        "CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (50) TO (500)",
        "INSERT INTO parts SELECT n, 'x' FROM generate_series(1, 99) n",
    )
    changes = await whole(app, street, "parts", 99)
    assert {change.table.full_name for change in changes} == {"public.parts"}


async def test_only_published_columns_and_rows_are_read(app: App, street: Street) -> None:
    await app.run(
        "CREATE TABLE narrow (id int PRIMARY KEY, secret text, note text,"
        " twice int GENERATED ALWAYS AS (id * 2) STORED)",
        "INSERT INTO narrow SELECT n, 'canary', 'x' FROM generate_series(1, 50) n",
        f"CREATE PUBLICATION {street.slot} FOR TABLE narrow (id, note) WHERE (id > 20)",
    )
    street.change(tables=("public.narrow",))
    async with street.listening():
        job = await ended(street.journal, await ask(street.journal, "public.narrow"))
        await app.run("INSERT INTO narrow VALUES (1000, 'canary', 'y')")
        await eventually(lambda: caught_up(street, app))
    changes = await read_all(street.journal)
    assert job.rows == 30, job.detail
    assert {tuple(change.row) for change in changes} == {("id", "note")}
    assert changes[0].table.version == changes[-1].table.version
