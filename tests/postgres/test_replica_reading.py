"""What a target prints of the source's texts and of its own rows, and which tables cannot be read back."""

from __future__ import annotations

import pytest

from backend_watcher.errors import ConfigError, SinkGone
from backend_watcher.events.table import Table
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.replica_reading import TargetRows, open_reader, target_rows
from backend_watcher.testing.builders import table

from .conftest import make

PRODUCTS = table()
STRANGE = 'a "b".%s'


async def rows_of(conn: Connection, shape: Table = PRODUCTS, *, create: bool = False) -> TargetRows:
    return await target_rows(conn, shape, "public", create=create)


async def test_texts_and_rows_are_printed_alike(conn: Connection) -> None:
    shape = table(columns={"id": "int8", STRANGE: "numeric", "at": "timestamptz"})
    quoted = STRANGE.replace('"', '""')
    await make(
        conn,
        f'CREATE TABLE products (id int PRIMARY KEY, "{quoted}" numeric(12, 1), at timestamptz(0), own int DEFAULT 7)',
        "INSERT INTO products VALUES (1, 1.25, '2026-01-01 00:00:00.6+02'), (2, NULL, 'infinity')",
    )
    found = await rows_of(conn, shape)
    texts = [["1", "1.25", "2025-12-31 22:00:00.6+00"], ["2", None, "infinity"]]
    printed = await found.printed(conn, texts)
    assert printed == [[b"1", b"1.3", b"2025-12-31 22:00:01+00"], [b"2", None, b"infinity"]]
    assert sorted(await found.found(conn, [["2"], ["9"], ["1"]])) == [(0, printed[1]), (2, printed[0])]
    assert (found.alike, found.fault) == (False, f"{STRANGE}, at of another type there")


async def test_keys_come_in_the_order_of_the_index_there(conn: Connection) -> None:
    shape = table(columns={"a": "int4", "b": "text"}, key=("a", "b"))
    await make(
        conn,
        "CREATE TABLE products (a int, b text, PRIMARY KEY (b, a))",
        "INSERT INTO products SELECT n % 3, 'b' || n FROM generate_series(1, 9) n",
    )
    found = await rows_of(conn, shape)
    assert (found.key, found.order) == (("a", "b"), ("b", "a"))
    first = await found.keys_after(conn, found.order, (), (), 4)
    assert first == [[b"b1", b"1"], [b"b2", b"2"], [b"b3", b"0"], [b"b4", b"1"]]
    assert await found.keys_after(conn, found.order, ("b4", "1"), ("b6", "0"), 9) == [[b"b5", b"2"], [b"b6", b"0"]]
    assert await found.keys_after(conn, found.order, (), ("b1", "1"), 9) == [[b"b1", b"1"]]


async def test_what_the_target_computes_is_left_out(conn: Connection) -> None:
    await make(
        conn,
        "CREATE TABLE products (id bigint PRIMARY KEY, name text, stock int GENERATED ALWAYS AS (id::int * 2) STORED)",
        "INSERT INTO products VALUES (1, 'a')",
    )
    found = await rows_of(conn)
    assert found.columns == ["id", "name"]
    assert await found.found(conn, [["1"]]) == [(0, [b"1", b"a"])]


async def test_what_is_made_on_demand_is_empty_until_then(conn: Connection) -> None:
    with pytest.raises(SinkGone, match="there is no table"):
        await rows_of(conn)
    none = await rows_of(conn, create=True)
    assert await none.printed(conn, [["1", None, "2"]]) == [[b"1", None, b"2"]]
    assert (await none.found(conn, [["1"]]), await none.keys_after(conn, none.order, (), (), 9)) == ([], [])
    await make(conn, "CREATE TABLE products (id bigint PRIMARY KEY, name text)", "INSERT INTO products VALUES (1, 'a')")
    with pytest.raises(SinkGone, match="has no column 'stock'"):
        await rows_of(conn)
    some = await rows_of(conn, create=True)
    assert await some.found(conn, [["1"]]) == [(0, [b"1", b"a", None])]
    assert await some.printed(conn, [["1", "a", "5"]]) == [[b"1", b"a", b"5"]]


async def test_tables_whose_rows_cannot_be_told_apart(conn: Connection) -> None:
    await make(conn, "CREATE TABLE products (id numeric(9, 2) PRIMARY KEY, name text, stock int)")
    with pytest.raises(ConfigError, match=r"products\.id is of another type"):
        await rows_of(conn)
    with pytest.raises(ConfigError, match="has no key"):
        await rows_of(conn, table(key=(), replica_identity="f"))


@pytest.mark.parametrize("kind", ["smallint", "bigint", "text", "varchar(20)"])
async def test_keys_that_print_the_same_are_one(conn: Connection, kind: str) -> None:
    await make(conn, f"CREATE TABLE products (id {kind} PRIMARY KEY, name varchar(3), stock bigint)")
    found = await rows_of(conn, table(columns={"id": "int4", "name": "text", "stock": "int4"}))
    # A number is hashed otherwise than its text.
    assert found.alike == (kind in ("smallint", "bigint"))
    assert found.orders_as(("id",)) == (kind in ("smallint", "bigint"))


async def test_its_session_only_reads(dsn: str) -> None:
    async with await open_reader(dsn) as conn:
        row = await (await conn.execute("SELECT current_setting('transaction_read_only')")).fetchone()
    assert row == ("on",)
