"""The replica against a real PostgreSQL: once each, values, keys, missing tables, errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from backend_watcher import probes
from backend_watcher.errors import ConfigError, SafetyStop, SinkGone, SinkRejected, SinkUnavailable
from backend_watcher.events.change import Change
from backend_watcher.events.position import Position
from backend_watcher.events.row import UNCHANGED
from backend_watcher.sinks import PostgresReplica
from backend_watcher.testing.builders import STREAM, change, table, transaction
from backend_watcher.testing.conformance_sink import (
    PRODUCTS,
    delete,
    insert,
    truncate,
    update,
)
from postgres.conftest import dsn, server  # noqa: F401 fixtures

SESSION = "backend_watcher:replica"


@asynccontextmanager
async def replica(dsn: str, **options: Any) -> AsyncIterator[PostgresReplica]:  # noqa: F811
    sink = PostgresReplica(dsn, **{"create": True, **options})
    sink.belongs_to("copy")
    await sink.open()
    yield sink
    await sink.close()


def rows(dsn: str, query: str = "SELECT id, name FROM products ORDER BY id") -> list[tuple[Any, ...]]:  # noqa: F811
    with psycopg.connect(dsn) as connection:
        return connection.execute(query.encode()).fetchall()


def run(dsn: str, *statements: str) -> None:  # noqa: F811
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def end_session(dsn: str) -> None:  # noqa: F811
    run(dsn, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = '" + SESSION + "'")


# --- once ---


async def test_what_is_applied_does_not_come_again_after_a_crash(dsn: str) -> None:  # noqa: F811
    bag = table("public.bag", key=(), replica_identity="f")
    batch = [change("insert", bag, new={"id": 1, "name": "a", "stock": 0}, lsn=n) for n in range(1, 4)]
    async with replica(dsn) as sink:
        await sink.write(batch[:2])
        await sink.write(batch[:2])
    async with replica(dsn) as sink:
        assert await sink.position_of(STREAM) == batch[1].position
        await sink.write(batch)
    assert rows(dsn, "SELECT count(*) FROM bag") == [(3,)]


async def test_an_older_change_never_undoes_a_newer_one(dsn: str) -> None:  # noqa: F811
    async with replica(dsn) as sink:
        await sink.write([insert(1, 1, "old"), update(2, 1, "new")])
        await sink.write([insert(1, 1, "old")])
    assert rows(dsn) == [(1, "new")]


async def test_a_change_that_comes_late_is_applied_once(dsn: str) -> None:  # noqa: F811
    bag = table("public.bag", key=())
    made = [change("insert", bag, new={"id": n, "name": "a", "stock": 0}, lsn=n) for n in range(1, 6)]
    async with replica(dsn) as sink:
        await sink.write([made[0], made[3]])
        await sink.write_late([made[1]])
        await sink.write_late([made[1], made[2]])
        # Ahead of the position: in order it comes again, if the cursor was not yet durable.
        await sink.write_late([made[4]])
        await sink.write([made[4]])
    async with replica(dsn) as sink:
        await sink.write_late([made[2], made[4]])
        await sink.write([made[3], made[4]])
    assert rows(dsn, "SELECT id FROM bag ORDER BY id") == [(n,) for n in range(1, 6)]


async def test_a_replay_repeats_rows_with_a_key_and_no_others(dsn: str) -> None:  # noqa: F811
    bag = table("public.bag", key=())
    row = change("insert", bag, new={"id": 1, "name": "a", "stock": 0}, lsn=1)
    async with replica(dsn) as sink:
        await sink.write([row, insert(2, 1, "a")])
        run(dsn, "DELETE FROM products")
        await sink.write([row.as_replayed(), insert(2, 1, "a").as_replayed()])
        await sink.write_late([row.as_replayed(), insert(2, 1, "a").as_replayed()])
        assert await sink.position_of(STREAM) == Position(2, 0)
    assert rows(dsn) == [(1, "a")]
    assert rows(dsn, "SELECT count(*) FROM bag") == [(1,)]


async def test_two_subscriptions_have_a_position_each(dsn: str) -> None:  # noqa: F811
    other = PostgresReplica(dsn, create=True)
    other.belongs_to("other")
    async with replica(dsn) as sink:
        await sink.write([insert(9, 1, "a")])
        await other.write([insert(3, 2, "b")])
    await other.close()
    assert rows(dsn) == [(1, "a"), (2, "b")]


async def test_two_writers_of_one_replica_do_not_apply_twice(dsn: str) -> None:  # noqa: F811
    bag = table("public.bag", key=())
    made = [change("insert", bag, new={"id": n, "name": "a", "stock": 0}, lsn=n) for n in range(1, 30)]
    async with replica(dsn, origin="off") as one, replica(dsn, origin="off") as other:
        await one.write(made[:1])
        await other.write(made[:2])
        for end in range(3, 30):
            await asyncio.gather(one.write(made[:end]), other.write(made[:end]))
    assert rows(dsn, "SELECT count(*), count(DISTINCT id) FROM bag") == [(29, 29)]


async def test_another_history_of_the_source_is_noticed(dsn: str) -> None:  # noqa: F811
    async with replica(dsn) as sink:
        await sink.write([insert(5, 1, "a")])
        with pytest.raises(SafetyStop, match="another history"):
            await sink.write([change(new={"id": 1}, within=transaction(5, xid=701))])


async def test_it_goes_on_where_its_session_was_ended(dsn: str) -> None:  # noqa: F811
    bag = table("public.bag", key=(), replica_identity="f")

    def one(at: int) -> Change:
        return change("insert", bag, new={"id": at, "name": "a", "stock": 0}, lsn=at)

    async with replica(dsn) as sink:
        await sink.write([one(1)])
        for place, at in (("replica.before_commit", 2), ("replica.after_commit", 3)):
            probes.arm(place, lambda: end_session(dsn))
            with contextlib.suppress(SinkUnavailable):
                await sink.write([one(at)])
            probes.disarm()
            await sink.write([one(at)])
    assert rows(dsn, "SELECT id FROM bag ORDER BY id") == [(1,), (2,), (3,)]


async def test_a_cancelled_write_leaves_nothing_half_done(dsn: str) -> None:  # noqa: F811
    async with replica(dsn) as sink:
        await sink.write([insert(1, 1, "a")])
        with psycopg.connect(dsn) as blocking:
            blocking.execute("LOCK TABLE products")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await sink.write([insert(2, 2, "b")])
        assert rows(dsn) == [(1, "a")]
        await sink.write([insert(2, 2, "b")])
    assert rows(dsn) == [(1, "a"), (2, "b")]


# --- keys, values, tables ---


async def test_unique_values_may_be_swapped(dsn: str) -> None:  # noqa: F811
    run(dsn, "CREATE TABLE products (id bigint PRIMARY KEY, name text UNIQUE, stock int)")
    steps = [update(3, 1, "tmp"), update(4, 2, "a"), update(5, 1, "b"), insert(6, 3, "c"), delete(7, 3)]
    async with replica(dsn) as sink:
        await sink.write([insert(1, 1, "a"), insert(2, 2, "b")])
        await sink.write(steps)
    assert rows(dsn) == [(1, "b"), (2, "a")]


async def test_a_transaction_that_fails_leaves_nothing(dsn: str) -> None:  # noqa: F811
    run(dsn, "CREATE TABLE products (id bigint PRIMARY KEY, name text CHECK (name <> 'bad'), stock int)")
    async with replica(dsn) as sink:
        with pytest.raises(SinkRejected, match="23514"):
            await sink.write([insert(1, 1, "a"), insert(2, 2, "bad"), insert(3, 3, "c")])
        assert rows(dsn) == []
        await sink.write([insert(1, 1, "a")])
        await sink.write([insert(3, 3, "c")])
    assert rows(dsn) == [(1, "a"), (3, "c")]


async def test_large_values_that_were_not_sent(dsn: str) -> None:  # noqa: F811
    def left_alone(at: int, key: int, before: int | None = None) -> Change:
        old = None if before is None else {"id": before}
        return change("update", PRODUCTS, new={"id": key, "name": UNCHANGED, "stock": at}, old=old, lsn=at)

    async with replica(dsn) as sink:
        await sink.write([insert(1, 1, "large"), left_alone(2, 1)])
        await sink.write([left_alone(3, 1)])
        await sink.write([left_alone(4, 7, before=1)])
        await sink.write([left_alone(5, 8, before=7), left_alone(6, 8), left_alone(7, 9, before=8)])
        assert rows(dsn, "SELECT id, name, stock FROM products") == [(9, "large", 7)]
        for at, lost in ((8, left_alone(8, 5)), (9, left_alone(9, 5, before=4))):
            with pytest.raises(SinkRejected, match="toast_unavailable"):
                await sink.write([lost])
            assert (await sink.position_of(STREAM)).commit_lsn < at
    assert rows(dsn, "SELECT id, name, stock FROM products") == [(9, "large", 7)]


async def test_one_of_equal_rows_is_changed_and_a_missing_one_is_told(dsn: str) -> None:  # noqa: F811
    bag = table("public.bag", key=(), replica_identity="f")
    same, other = {"id": 1, "name": "a", "stock": None}, {"id": 2, "name": "a", "stock": None}
    async with replica(dsn) as sink:
        await sink.write([change("insert", bag, new=same, lsn=n) for n in (1, 2, 3)])
        await sink.write([change("update", bag, old=same, new=other, lsn=4), change("delete", bag, old=same, lsn=5)])
        assert rows(dsn, "SELECT id FROM bag ORDER BY id") == [(1,), (2,)]
        with pytest.raises(SinkRejected, match="row_missing"):
            await sink.write([change("delete", bag, old=same | {"id": 3}, lsn=6)])


async def test_rows_go_to_another_schema_and_transforms_are_written(dsn: str) -> None:  # noqa: F811
    masked = insert(1, 1, "secret").replace(new={"id": 1, "name": "***", "stock": 2})
    async with replica(dsn, schema="copy of shop") as sink:
        await sink.write([masked])
        await sink.write([masked, update(2, 2, "x")])
    assert rows(dsn, 'SELECT id, name FROM "copy of shop".products ORDER BY id') == [(1, "***"), (2, "x")]


async def test_what_is_missing_pauses_and_goes_on_once_it_is_mended(dsn: str) -> None:  # noqa: F811
    async with replica(dsn, create=False) as sink:
        for fault in ("there is no table", None):
            if fault is None:
                await sink.write([insert(1, 1, "a")])
                continue
            with pytest.raises(SinkGone, match=fault) as caught:
                await sink.write([insert(1, 1, "a")])
            run(dsn, caught.value.remedy.partition("; then")[0])
        run(dsn, "ALTER TABLE products DROP COLUMN name")
        with pytest.raises(SinkGone, match="42703"):
            await sink.write([insert(2, 2, "b")])
        with pytest.raises(SinkGone, match="has no column 'name'") as caught:
            await sink.write([insert(2, 2, "b")])
        run(dsn, caught.value.remedy.partition("; then")[0])
        await sink.write([insert(2, 2, "b")])
    assert rows(dsn) == [(1, None), (2, "b")]


# --- when it cannot be done now ---


@pytest.mark.parametrize(
    "setting",
    ["default_transaction_read_only = on", "lock_timeout = 50"],
)
async def test_what_passes_by_itself_blames_the_server(
    dsn: str,  # noqa: F811
    setting: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with replica(dsn) as sink:
        await sink.write([insert(1, 1, "a")])
        assert sink._conn is not None
        with psycopg.connect(dsn) as blocking:
            blocking.execute("LOCK TABLE products")
            await sink._conn.execute(f"SET {setting}".encode())
            with pytest.raises(SinkUnavailable, match=r"25006|55P03"):
                await sink.write([insert(2, 2, "b")])
        await sink.write([insert(2, 2, "b")])
    assert rows(dsn) == [(1, "a"), (2, "b")]


async def test_triggers_rest_unless_they_are_wanted(dsn: str) -> None:  # noqa: F811
    run(
        dsn,
        "CREATE TABLE products (id bigint PRIMARY KEY, name text, stock int)",
        "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN NEW.name = upper(NEW.name); RETURN NEW; END'",
        "CREATE TRIGGER shout BEFORE INSERT ON products FOR EACH ROW EXECUTE FUNCTION shout()",
    )
    async with replica(dsn) as sink:
        await sink.write([insert(1, 1, "a")])
    async with replica(dsn, fire_triggers=True) as sink:
        await sink.write([insert(2, 2, "b")])
    assert rows(dsn) == [(1, "a"), (2, "B")]


async def test_a_role_without_privileges_works_and_says_what_it_goes_without(dsn: str) -> None:  # noqa: F811
    run(dsn, "CREATE ROLE poor LOGIN PASSWORD 'x'", "CREATE SCHEMA watcher AUTHORIZATION poor")
    run(dsn, "CREATE TABLE products (id bigint PRIMARY KEY, name text, stock int)")
    run(dsn, "GRANT SELECT, INSERT, UPDATE, DELETE ON products TO poor")
    poor = f"postgresql://poor:x@{dsn.rpartition('@')[2]}"
    async with replica(poor) as sink:
        await sink.write([insert(1, 1, "a"), truncate(2), insert(3, 2, "b")])
        told = sink.describe()
        assert "not permitted" in told["origin"]
        assert "not permitted" in told["fire_triggers"]
    assert rows(dsn) == [(2, "b")]
    async with replica(poor, origin="require") as sink:
        with pytest.raises(SinkUnavailable, match="replication origin"):
            await sink.write([insert(9, 2, "b")])


async def test_what_is_written_carries_its_origin(dsn: str) -> None:  # noqa: F811
    async with replica(dsn) as sink:
        await sink.write([insert(1, 1, "a")])
        name = "backend_watcher_7000000000000000001_test_slot_copy"
        query = f"SELECT roname FROM pg_replication_origin WHERE roname = '{name}'"
        assert rows(dsn, query) == [(name,)]
    run(dsn, f"SELECT pg_replication_origin_drop('{name}')")


def test_wrong_settings_are_told_by_their_names() -> None:
    with pytest.raises(ConfigError) as caught:
        PostgresReplica("", schema="", origin="perhaps")  # type: ignore[arg-type]
    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["dsn", "schema", "origin"]
