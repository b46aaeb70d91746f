"""Keys as texts, on a real server: how it writes them, and which of them no row has."""

from __future__ import annotations

import pytest
from psycopg import sql

from backend_watcher.errors import SourceRefused
from backend_watcher.postgres import row_keys
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.row_keys import KeyTypes, as_written, key_types, without_row

from .conftest import make

INTEGER = KeyTypes(("integer",), True)


async def types_of(conn: Connection, *key: str, table: str = "a") -> KeyTypes:
    cursor = await conn.execute("SELECT %s::regclass::oid", [f"public.{table}"])
    row = await cursor.fetchone()
    assert row is not None
    return await key_types(conn, row[0], key)


async def gone(
    conn: Connection, key: tuple[str, ...], *keys: tuple[str, ...], only: str | None = None, table: str = "a"
) -> list[bytes]:
    types = await types_of(conn, *key, table=table)
    return await without_row(conn, types, sql.Identifier("public", table), key, keys, only)


async def test_types_come_in_the_order_of_the_key(conn: Connection) -> None:
    await make(
        conn,
        "CREATE DOMAIN code AS varchar(4)",
        "CREATE TABLE a (n numeric(8, 2), i int, c code, t text, v varchar(9), b char(3), u uuid, f float8)",
    )
    assert await types_of(conn, "i", "n") == KeyTypes(("integer", "numeric(8,2)"), False)
    assert await types_of(conn, "v", "t", "u", "i") == KeyTypes(
        ("character varying(9)", "text", "uuid", "integer"), True
    )
    for name, written in (("c", "public.code"), ("b", "character(3)"), ("f", "double precision")):
        assert await types_of(conn, name) == KeyTypes((written,), False)
    with pytest.raises(SourceRefused, match="are gone"):
        await types_of(conn, "i", "lost")


async def test_a_collation_that_takes_different_texts_for_equal_is_known(conn: Connection) -> None:
    await make(
        conn,
        # One that the server makes needs ICU, which not every build has.
        'CREATE COLLATION same FROM "C"',
        "SET allow_system_table_mods = on",
        "UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'same'",
        "CREATE TABLE a (t text COLLATE same PRIMARY KEY)",
    )
    assert await types_of(conn, "t") == KeyTypes(("text",), False)


async def test_keys_are_written_as_the_server_does(conn: Connection) -> None:
    assert await as_written(conn, INTEGER, [("01",), (" 7 ",), ("-0",)]) == [b"1\n", b"7\n", b"0\n"]
    two = KeyTypes(("text", "timestamp with time zone"), True)
    assert await as_written(conn, two, [("it's\t", "2026-01-01 00:00+01")]) == [b"it's\\t\t2025-12-31 23:00:00+00\n"]
    assert await as_written(conn, two, []) == []


async def test_what_is_no_value_is_told_and_the_others_are_written(
    conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_keys, "KEYS_MAX", 5)
    keys = [("1",), ("x",), ("99999999999",), ("4",), ("\0",), ("6",), ("7",)]
    assert await as_written(conn, INTEGER, keys) == [b"1\n", None, None, b"4\n", None, b"6\n", b"7\n"]
    # The connection is as it was.
    assert await as_written(conn, INTEGER, [("8",)]) == [b"8\n"]


async def test_keys_that_no_row_has(conn: Connection) -> None:
    await make(
        conn,
        "CREATE TABLE a (x text, y int, PRIMARY KEY (x, y))",
        "INSERT INTO a VALUES ('a''', 2), (E'b\\\\\\t', 1)",
    )
    asked = (("a'", "2"), ("a'", "3"), ("b\\\t", "01"), ("b\\\t", "2"))
    assert await gone(conn, ("x", "y"), *asked) == [b"a'\t3\n", b"b\\\\\\t\t2\n"]
    assert await gone(conn, ("x", "y"), ("a'", "2")) == []


async def test_a_row_that_is_equal_in_another_text_is_one(conn: Connection) -> None:
    await make(conn, "CREATE TABLE a (k numeric PRIMARY KEY)", "INSERT INTO a VALUES (1.00)")
    assert await gone(conn, ("k",), ("1.0",), ("2.0",)) == [b"2.0\n"]


async def test_rows_that_are_not_published_are_none(conn: Connection) -> None:
    await make(
        conn, "CREATE TABLE k (c0 int PRIMARY KEY, n int)", "INSERT INTO k SELECT n, n FROM generate_series(1, 4) n"
    )
    assert await gone(conn, ("c0",), ("2",), ("3",), only="(n > 2)", table="k") == [b"2\n"]


async def test_a_text_that_is_no_value_is_refused(conn: Connection) -> None:
    await make(conn, "CREATE TABLE a (k int PRIMARY KEY)")
    with pytest.raises(SourceRefused, match="invalid input syntax"):
        await gone(conn, ("k",), ("x",))
