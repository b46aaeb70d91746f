"""A replica read back: every value that was written is what should be there; names hold on both sides."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from backend_watcher.decode.tables import make_table
from backend_watcher.errors import SinkGone, SinkRejected, SinkUnavailable
from backend_watcher.events.change import Change
from backend_watcher.events.table import Table
from backend_watcher.postgres import reading
from backend_watcher.postgres.connect import connect
from backend_watcher.reconcile.source import Source
from backend_watcher.sinks import PostgresReplica
from backend_watcher.sinks import postgres_replica_read as read_back
from backend_watcher.testing.builders import change, table
from backend_watcher.testing.conformance_sink import PRODUCTS, delete, insert, update
from backend_watcher.verifiable import Repairable
from postgres.conftest import dsn, server  # noqa: F401 fixtures

from .test_postgres_replica import replica, run
from .test_postgres_replica_delivered import KINDS, TABLES


@asynccontextmanager
async def opened(dsn: str, **options: Any) -> AsyncIterator[PostgresReplica]:  # noqa: F811
    sink = PostgresReplica(dsn, **options)
    await sink.open_to_read()
    yield sink
    await sink.close()


async def wanted(sink: PostgresReplica, changes: Sequence[Change]) -> dict[bytes, bytes | None]:
    found = await sink.entries(changes)
    return dict(one for one in found if not isinstance(one, SinkRejected))


async def all_names(sink: PostgresReplica, shape: Table) -> list[bytes]:
    names: list[bytes] = []
    cursor, more = b"", True
    while more:
        some, cursor = await sink.names_after(shape, cursor)
        names += some
        more = cursor != b""
    return names


async def test_what_was_written_is_what_should_be_there(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(read_back, "NAMES", 2)
    rows = [insert(n, n, f"name {n}") for n in range(1, 6)]
    async with replica(dsn) as sink:
        await sink.write(rows)
        await sink.open_to_read()
        expected = await wanted(sink, rows)
        assert expected[b'["3"]'] == b'{"id": "3", "name": "name 3", "stock": "0"}'
        names = [*expected, b'["9"]']
        assert await sink.held(PRODUCTS, names) == [*expected.values(), None]
        assert await all_names(sink, PRODUCTS) == [*expected]
        # It goes on writing.
        await sink.write([delete(9, 3)])
        assert await sink.held(PRODUCTS, [b'["3"]']) == [None]


async def test_values_of_every_kind_are_equal_on_both_sides(dsn: str) -> None:  # noqa: F811
    """Source and target are one table here: what differs would differ by the way that it is asked."""
    run(dsn, TABLES, KINDS, "CREATE PUBLICATION p FOR TABLE kinds")
    source = Source(dsn, "p")
    kinds = await source.table("public.kinds")
    rows = await source.read(kinds, reading.Asked(), (), 10)
    await source.close()
    async with opened(dsn) as sink:
        expected = await wanted(sink, rows.changes)
        assert len(expected) == 3
        assert await sink.held(kinds.shape, list(expected)) == [*expected.values()]
        assert set(await all_names(sink, kinds.shape)) == set(expected)
        assert [*sink.touches(rows.changes[0])] == [b'["1"]']


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("bool", ["true", "false"]),
        ("inet", ["10.0.0.1", "::1/64"]),
        ("char(5)", ["a", "ab"]),
        ("numeric(9, 2)", ["1", "2.5"]),
        ("timestamptz", ["infinity", "2026-01-01 00:00+03"]),
        ("text", ["", 'a"\\\n', "\N{PILE OF POO}"]),
        ("bytea", ["\\x00ff", ""]),
        ("interval", ["1 mon", "-00:00:01"]),
    ],
)
async def test_keys_are_called_as_the_source_calls_them(dsn: str, kind: str, values: list[str]) -> None:  # noqa: F811
    run(dsn, f"CREATE TABLE keyed (k {kind} PRIMARY KEY, v int)", "CREATE PUBLICATION p FOR TABLE keyed")
    with psycopg.connect(dsn, autocommit=True) as connection:
        for value in values:
            connection.execute(f"INSERT INTO keyed VALUES (%s::text::{kind}, 1)".encode(), [value])
    source = Source(dsn, "p")
    keyed = await source.table("public.keyed")
    changes = (await source.read(keyed, reading.Asked(), (), 10)).changes
    await source.close()
    touched = {name for one in changes for name in PostgresReplica(dsn).touches(one)}
    async with opened(dsn) as sink:
        expected = await wanted(sink, changes)
        assert set(expected) == set(await all_names(sink, keyed.shape)) == touched
        assert await sink.held(keyed.shape, list(expected)) == [*expected.values()]


async def test_a_row_that_is_refused_is_refused_alone(dsn: str) -> None:  # noqa: F811
    run(dsn, "CREATE DOMAIN small AS int CHECK (VALUE < 10)")
    run(dsn, "CREATE TABLE products (id bigint PRIMARY KEY, name text, stock small)")
    rows = [change("read", PRODUCTS, new={"id": n, "name": "a", "stock": n}) for n in range(1, 20)]
    async with opened(dsn) as sink:
        found = await sink.entries(rows)
        nameless = await sink.entries([change("read", PRODUCTS, new={"id": None}), rows[0]])
    assert [number for number, one in enumerate(found, 1) if isinstance(one, SinkRejected)] == list(range(10, 20))
    assert [isinstance(one, SinkRejected) for one in nameless] == [True, False]


async def test_what_a_transform_made_is_written_as_it_writes_it(dsn: str) -> None:  # noqa: F811
    run(dsn, "CREATE TABLE products (id bigint PRIMARY KEY, name text, stock int)")
    row = insert(1, 7, "a")
    made, part = row.replace(new={"id": 7, "name": None, "stock": 12}), row.replace(new={"id": 7, "stock": 12})
    async with opened(dsn) as sink:
        entry, refused = await sink.entries([made, part])
    assert entry == (b'["7"]', b'{"id": "7", "name": null, "stock": "12"}')
    # `write` would look for what is not there at the target.
    assert isinstance(refused, SinkRejected)
    assert "name has no value" in refused.message


async def test_a_key_that_is_only_equal_is_another_name(dsn: str) -> None:  # noqa: F811
    run(dsn, "CREATE TABLE products (id numeric PRIMARY KEY, name text, stock int)")
    run(dsn, "INSERT INTO products VALUES (1.0, 'a', 0)")
    shape = make_table(1, "public", "products", "d", [("id", 1700, -1, True), ("name", 25, -1, False)], ("id",))
    async with opened(dsn) as sink:
        held = await sink.held(shape, [b'["1.00"]', b'["1.0"]'])
    assert (held[0], json.loads(held[1] or b"{}")["name"]) == (None, "a")


def test_a_change_names_the_row_that_was_and_the_one_that_is() -> None:
    sink = PostgresReplica("postgresql://127.0.0.1:1/x", schema="copy")
    assert sink.touches(update(1, 8, "a", before=7)) == [b'["8"]', b'["7"]']
    assert sink.touches(delete(1, 7)) == [b'["7"]']
    assert sink.touches(change("truncate", PRODUCTS)) == []
    assert sink.touches(change("insert", table("public.bag", key=(), replica_identity="f"), new={"id": 1})) == []
    assert sink.scope(PRODUCTS) == sink.scope(table("other.products")) == "copy.products"
    assert sink.extras_unknown() == ""


async def test_what_is_wrong_at_the_target_is_said(dsn: str) -> None:  # noqa: F811
    async with opened(dsn) as sink:
        with pytest.raises(SinkGone, match="there is no table"):
            await sink.entries([insert(1, 1, "a")])
    with pytest.raises(SinkUnavailable, match=r"127\.0\.0\.1:1/x"):
        await PostgresReplica("postgresql://127.0.0.1:1/x").open_to_read()


async def test_a_session_that_ended_is_followed_by_another(dsn: str) -> None:  # noqa: F811
    run(dsn, "CREATE TABLE products (id bigint PRIMARY KEY, name text, stock int)")
    async with opened(dsn) as sink:
        async with await connect(dsn, purpose="test") as other:
            await other.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE '%verify'"
            )
        with pytest.raises(SinkUnavailable):
            await sink.held(PRODUCTS, [b'["1"]'])
        assert await sink.held(PRODUCTS, [b'["1"]']) == [None]


async def test_rows_are_summed_up_there(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(read_back, "NAMES", 3)
    run(dsn, "CREATE TABLE products (id bigint PRIMARY KEY, name text, stock int)")
    run(dsn, "INSERT INTO products SELECT n, 'a', 1 FROM generate_series(1, 8) n")
    async with opened(dsn) as sink:
        assert await sink.digest_way(PRODUCTS, ("id",)) != ""
        found = await sink.digests(PRODUCTS, ("id",), [(), ("2",), ("3",), ("9",), ()])
        assert [rows for rows, _ in found] == [2, 1, 5, 0]
        names, after = await sink.names_between(PRODUCTS, ("id",), ("2",), ("7",))
        assert (names, after) == ([(b'["%d"]' % n, (str(n),)) for n in (3, 4, 5)], ("5",))
        names, after = await sink.names_between(PRODUCTS, ("id",), after, ("7",))
        assert (names, after) == ([(b'["%d"]' % n, (str(n),)) for n in (6, 7)], ())


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE products (id bigint PRIMARY KEY, name text, stock numeric(9, 2))",
        "CREATE TABLE products (id bigint PRIMARY KEY, name text, stock int GENERATED ALWAYS AS (1) STORED)",
        "CREATE TABLE products (id bigint, name text, stock int, PRIMARY KEY (name, id))",
        # 10 comes before 9 there.
        "CREATE TABLE products (id text PRIMARY KEY, name text, stock int)",
    ],
)
async def test_they_are_not_where_they_print_otherwise(dsn: str, made: str) -> None:  # noqa: F811
    run(dsn, made)
    key = ("id", "name") if "(name, id)" in made else ("id",)
    async with opened(dsn) as sink:
        assert await sink.digest_way(table(key=key), key) == ""


async def test_what_takes_too_long_is_not_summed_up(dsn: str) -> None:  # noqa: F811
    run(dsn, "CREATE TABLE products (id bigint PRIMARY KEY, name text, stock int)")
    run(dsn, "INSERT INTO products SELECT n, 'a', 1 FROM generate_series(1, 20000) n")
    async with opened(dsn) as sink:
        assert await sink.digest_way(PRODUCTS, ("id",)) != ""
        assert sink._back._conn is not None
        await sink._back._conn.execute("SET statement_timeout = 1")
        assert await sink.digests(PRODUCTS, ("id",), [(), ()]) == ()


async def test_nothing_is_summed_up_of_what_is_not_there_yet(dsn: str) -> None:  # noqa: F811
    async with opened(dsn, create=True) as sink:
        assert await sink.digest_way(PRODUCTS, ("id",)) == ""
        assert await sink.held(PRODUCTS, [b'["1"]']) == [None]


def test_it_says_which_row_a_name_is_of() -> None:
    pairs = table("public.pairs", {"a": "int8", "b": "text", "n": "text"}, ("b", "a"))
    sink = PostgresReplica("postgresql://127.0.0.1:1/copy")
    assert isinstance(sink, Repairable)
    (named,) = sink.touches(change("delete", pairs, old={"a": 7, "b": "x"}))
    assert sink.keys_of(pairs, [named, b'["\\udcff", "7"]']) == [{"b": "x", "a": "7"}, "its key is not UTF-8"]
    by_index = make_table(7, "public", "pairs", "i", [("a", 20, -1, False), ("b", 25, -1, True)], ["a"])
    assert sink.keys_of(by_index, [b'["x"]']) == ["rows of public.pairs are not told by its primary key"]
