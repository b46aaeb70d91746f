"""Staged rows become rows of the target: written, deleted, written in part, one of several equal ones."""

from __future__ import annotations

from typing import Any

import pytest

from backend_watcher.errors import SinkRejected
from backend_watcher.events.fields import Cell, join_cells
from backend_watcher.events.row import UNCHANGED
from backend_watcher.events.table import Table
from backend_watcher.postgres import replica_merge
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.replica_merge import Merge, truncate
from backend_watcher.postgres.replica_tables import target_of
from backend_watcher.testing.builders import table

from .conftest import make


def fields(*cells: Cell) -> bytes:
    return join_cells(cells)


async def merging(conn: Connection, shape: Table | None = None) -> Merge:
    shape = shape or table()
    merge = Merge(shape, await target_of(conn, shape, "public", create=True), 0)
    await merge.prepare(conn)
    return merge


async def rows(conn: Connection, query: str = "SELECT * FROM public.products ORDER BY 1, 2") -> list[tuple[Any, ...]]:
    return await (await conn.execute(query.encode())).fetchall()


@pytest.mark.parametrize("deferrable", [False, True])
async def test_rows_are_written_over_and_deleted(conn: Connection, deferrable: bool) -> None:
    if deferrable:
        await make(conn, "CREATE TABLE products (id bigint PRIMARY KEY DEFERRABLE, name text, stock int)")
    merge = await merging(conn)
    async with conn.transaction():
        await merge.write(conn, [fields(b"1", b"a", None), fields(b"2", b"\\N\t", b"5")], [], {})
        await merge.write(conn, [fields(b"1", b"", b"7")], [fields(b"2", None, None)], {})
    assert await rows(conn) == [(1, "", 7)]


async def test_what_a_row_lacks_stays_as_it_is(conn: Connection) -> None:
    merge = await merging(conn)
    part: list[Cell] = [b"1", UNCHANGED, b"9"]
    async with conn.transaction():
        await merge.write(conn, [fields(b"1", b"large", b"1")], [], {})
        await merge.write(conn, [], [], {frozenset({1}): [part]})
        assert await merge.read(conn, fields(b"1", None, None)) == [b"1", b"large", b"9"]
        assert await merge.read(conn, fields(b"2", None, None)) is None
    assert await rows(conn) == [(1, "large", 9)]
    with pytest.raises(SinkRejected, match=r"toast_unavailable: name of public\.products"):
        async with conn.transaction():
            await merge.write(conn, [], [], {frozenset({1}): [[b"2", UNCHANGED, b"9"]]})


async def test_one_of_several_equal_rows_is_replaced(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_merge, "FILLINGS_MAX", 3)
    await make(conn, "CREATE TABLE products (id bigint, name json, stock float8)")
    merge = await merging(conn, table(columns={"id": "int8", "name": "json", "stock": "float8"}, key=()))
    same = fields(b"1", b'{"a":  1}', b"NaN")
    async with conn.transaction():
        await merge.insert(conn, [same, same, same, fields(None, None, b"-0")])
        assert await merge.replace_one(conn, same, fields(b"2", b"{}", None))
        assert await merge.replace_one(conn, same, None)
        assert await merge.replace_one(conn, fields(None, None, b"-0"), None)
        assert not await merge.replace_one(conn, fields(None, None, b"0"), None)
    assert await rows(conn, "SELECT id, name::text, stock::text FROM public.products ORDER BY 1") == [
        (1, '{"a":  1}', "NaN"),
        (2, "{}", None),
    ]


async def test_a_value_that_does_not_fit_is_not_cut(conn: Connection) -> None:
    await make(conn, "CREATE TABLE products (id bigint PRIMARY KEY, name varchar(3), stock int)")
    merge = await merging(conn)
    with pytest.raises(Exception, match="too long"):
        async with conn.transaction():
            await merge.write(conn, [fields(b"1", b"abcd", None)], [], {})
    assert await rows(conn) == []


async def test_a_type_reads_its_own_text_and_no_cast_does(conn: Connection) -> None:
    await make(
        conn,
        "CREATE TYPE mood AS ENUM ('good', 'bad')",
        # Of text, a cast makes something else than the type itself reads.
        "CREATE FUNCTION feel(text) RETURNS mood LANGUAGE sql AS $$ SELECT 'bad'::public.mood $$",
        "CREATE CAST (text AS mood) WITH FUNCTION feel(text)",
        "CREATE DOMAIN pointer AS regclass",
        'CREATE TABLE products (id bigint PRIMARY KEY, name mood, a regclass, b pointer, c "char", d name)',
    )
    of = dict.fromkeys(("name", "a", "b", "c", "d"), "text")
    merge = await merging(conn, table(columns={"id": "int8", **of}))
    texts = [b"good", b"-", b"-", b'"', rb'a\\"b, {c}']
    async with conn.transaction():
        await merge.write(conn, [fields(b"1", *texts), fields(b"2", None, None, None, None, None)], [], {})
        await merge.write(conn, [fields(b"3", *texts)], [], {}, expected=True)
    query = "SELECT name::text, a::text, b::text, c::text, d::text FROM public.products ORDER BY id"
    whole = tuple(text.decode() for text in texts)
    assert await rows(conn, query) == [whole, (None,) * 5, whole]


async def test_what_the_target_computes_is_left_to_it(conn: Connection) -> None:
    await make(
        conn,
        "CREATE TABLE products (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, "
        "stock int GENERATED ALWAYS AS (length(name)) STORED)",
    )
    merge = await merging(conn)
    async with conn.transaction():
        await merge.write(conn, [fields(b"41", b"abc", b"0")], [], {})
    assert await rows(conn) == [(41, "abc", 3)]


async def test_a_truncate_gives_way_to_foreign_keys(conn: Connection) -> None:
    merge = await merging(conn)
    await make(conn, "CREATE TABLE sold (product bigint REFERENCES products)", "INSERT INTO products VALUES (1)")
    await truncate(conn, merge.target)
    assert await rows(conn) == []


@pytest.mark.parametrize("expected", [True, False, None])
async def test_what_was_expected_is_only_faster(conn: Connection, expected: bool | None) -> None:
    merge = await merging(conn)
    async with conn.transaction():
        await merge.write(conn, [fields(b"1", b"a", None)], [], {}, expected=expected)
        await merge.write(conn, [fields(b"1", b"b", None), fields(b"2", b"c", None)], [], {}, expected=expected)
        await merge.write(conn, [fields(b"2", b"d", b"1")], [], {}, expected=expected)
    assert await rows(conn) == [(1, "b", None), (2, "d", 1)]
