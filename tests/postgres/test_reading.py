"""Rows of a table in chunks, on a real server."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
import pytest

from backend_watcher.errors import SourceError, SourceRefused, SourceUnavailable
from backend_watcher.postgres import reading
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.reading import Asked, ReadChunk, ReadTable, describe, read_chunk

from .conftest import make

GENERATED_SINCE = 180_000
FILTERS_SINCE = 150_000
ALL = Asked()


async def described(conn: Connection, name: str = "a") -> ReadTable:
    cursor = await conn.execute("SELECT %s::regclass::oid", [f"public.{name}"])
    row = await cursor.fetchone()
    assert row is not None
    table = await describe(conn, "p", row[0])
    assert table is not None
    return table


async def chunk(
    conn: Connection,
    table: ReadTable,
    after: Sequence[str] = (),
    size: int = 3,
    asked: Asked = ALL,
    *,
    gone: bool = False,
) -> ReadChunk:
    found = await read_chunk(conn, "p", table, asked, after, size, gone=gone)
    assert found is not None
    assert conn.pgconn.transaction_status == 0
    return found


async def test_a_table_is_described_as_the_stream_would(conn: Connection) -> None:
    await make(
        conn,
        "CREATE TABLE a (id bigint PRIMARY KEY, gone int, name varchar(9), price numeric(8, 2))",
        "ALTER TABLE a DROP COLUMN gone",
        "CREATE PUBLICATION p FOR TABLE a",
    )
    table = await described(conn)
    assert (table.full_name, table.kind, table.replica_identity, table.key) == ("public.a", "r", "d", ("id",))
    assert [(c.name, c.type_oid, c.modifier, c.identity) for c in table.columns] == [
        ("id", 20, -1, True),
        ("name", 1043, 13, False),
        ("price", 1700, 524294, False),
    ]


@pytest.mark.parametrize(
    ("identity", "key", "flags"),
    [
        ("FULL", ("id",), [True, True]),
        ("USING INDEX b_name", ("name",), [False, True]),
        ("NOTHING", ("id",), [False, False]),
    ],
)
async def test_the_key_follows_the_replica_identity(
    conn: Connection, identity: str, key: tuple[str, ...], flags: list[bool]
) -> None:
    await make(
        conn,
        "CREATE TABLE b (id int PRIMARY KEY, name text NOT NULL)",
        "CREATE UNIQUE INDEX b_name ON b (name)",
        f"ALTER TABLE b REPLICA IDENTITY {identity}",
        "CREATE PUBLICATION p FOR TABLE b",
    )
    table = await described(conn, "b")
    assert (table.key, [column.identity for column in table.columns]) == (key, flags)


async def test_what_is_not_published_or_not_there(conn: Connection) -> None:
    await make(conn, "CREATE TABLE a (id int)", "CREATE PUBLICATION p")
    with pytest.raises(SourceRefused, match=r"public\.a is not in publication 'p'"):
        await described(conn)
    assert await describe(conn, "p", 4) is None


async def test_generated_columns_come_where_the_publication_says_so(conn: Connection) -> None:
    await make(
        conn,
        "CREATE TABLE a (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)",
        "CREATE PUBLICATION p FOR TABLE a",
    )
    assert [column.name for column in (await described(conn)).columns] == ["id"]
    if conn.info.server_version >= GENERATED_SINCE:
        await make(conn, "ALTER PUBLICATION p SET (publish_generated_columns = stored)")
        assert [column.name for column in (await described(conn)).columns] == ["id", "twice"]


async def test_chunks_follow_each_other_by_the_key(conn: Connection) -> None:
    await make(
        conn,
        "CREATE TABLE a (x text, y int, PRIMARY KEY (x, y))",
        "INSERT INTO a VALUES ('a''', 2), ('a''', 10), (E'b\\\\\\t', 1), ('c', 1), ('d', 1)",
        "CREATE PUBLICATION p FOR TABLE a",
    )
    table = await described(conn)
    first = await chunk(conn, table)
    assert first.lines == [b"a'\t2\n", b"a'\t10\n", b"b\\\\\\t\t1\n"]
    assert first.more
    second = await chunk(conn, table, ("b\\\t", "1"))
    assert (second.lines, second.more) == ([b"c\t1\n", b"d\t1\n"], False)


async def test_a_condition_bounds_what_is_looked_at(conn: Connection) -> None:
    await make(
        conn,
        "CREATE TABLE a (id int PRIMARY KEY)",
        "INSERT INTO a SELECT generate_series(1, 10)",
        "CREATE PUBLICATION p FOR TABLE a",
    )
    table = await described(conn)
    asked = Asked(where="a.id > 7")
    first = await chunk(conn, table, (), 5, asked)
    assert (first.lines, first.more, first.bound) == ([], True, b"5\n")
    second = await chunk(conn, table, ("5",), 5, asked)
    assert (second.lines, second.bound) == ([b"8\n", b"9\n", b"10\n"], b"10\n")
    third = await chunk(conn, table, ("10",), 5, asked)
    assert (third.lines, third.more) == ([], False)


async def test_keys_choose_rows(conn: Connection) -> None:
    await make(
        conn,
        "CREATE TABLE a (id int PRIMARY KEY)",
        "INSERT INTO a SELECT generate_series(1, 10)",
        "CREATE PUBLICATION p FOR TABLE a",
    )
    found = await chunk(conn, await described(conn), (), 5, Asked(keys=(("3",), ("9",), ("77",))))
    assert (found.lines, found.more) == ([b"3\n", b"9\n"], False)


async def test_keys_that_no_row_has_are_said_under_the_same_snapshot(conn: Connection, dsn: str) -> None:
    await make(
        conn,
        "CREATE TABLE a (id int PRIMARY KEY, n int) PARTITION BY RANGE (id)",
        "CREATE TABLE a1 PARTITION OF a FOR VALUES FROM (0) TO (100)",
        "INSERT INTO a SELECT n, n FROM generate_series(1, 10) n",
        "CREATE PUBLICATION p FOR TABLE a WITH (publish_via_partition_root = true)",
    )
    table = await described(conn)
    asked = Asked(keys=(("3",), ("9",), ("77",)))
    found = await chunk(conn, table, (), 5, asked, gone=True)
    assert (found.lines, found.gone, found.exact) == ([b"3\t3\n", b"9\t9\n"], [b"77\n"], True)
    # A chunk that leaves rows for the next one says all that are gone.
    found = await chunk(conn, table, (), 1, asked, gone=True)
    assert (found.lines, found.gone, found.more) == ([b"3\t3\n"], [b"77\n"], True)


async def test_without_a_key_nobody_can_say_what_is_gone(conn: Connection) -> None:
    await make(conn, "CREATE TABLE a (id int)", "CREATE PUBLICATION p FOR TABLE a")
    with pytest.raises(SourceRefused, match=r"public\.a has no key"):
        await chunk(conn, await described(conn), (), 5, Asked(keys=(("3",),)), gone=True)


async def test_pages_of_every_partition_follow_each_other(conn: Connection) -> None:
    await make(
        conn,
        "CREATE TABLE a (id int, filler text) PARTITION BY RANGE (id)",
        "CREATE TABLE a1 PARTITION OF a FOR VALUES FROM (0) TO (100)",
        "CREATE TABLE a2 PARTITION OF a FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (id)",
        "CREATE TABLE a21 PARTITION OF a2 FOR VALUES FROM (100) TO (200)",
        "CREATE TABLE a3 PARTITION OF a FOR VALUES FROM (200) TO (300)",
        "INSERT INTO a SELECT n, repeat('x', 900) FROM generate_series(1, 199) n",
        "CREATE PUBLICATION p FOR TABLE a WITH (publish_via_partition_root = true)",
    )
    table = await described(conn)
    assert (table.kind, table.key, len(table.leaves)) == ("p", (), 3)
    seen: list[bytes] = []
    after: tuple[str, ...] = ()
    while (found := await chunk(conn, table, after, 4)).more:
        seen += found.lines
        assert found.page is not None
        after = found.page
    assert sorted(int(line.split(b"\t")[0]) for line in seen) == list(range(1, 200))


async def test_only_what_is_published_is_read(conn: Connection) -> None:
    if conn.info.server_version < FILTERS_SINCE:
        pytest.skip("row filters and column lists came with PostgreSQL 15")
    await make(
        conn,
        "CREATE TABLE a (id int PRIMARY KEY, secret text, n int)",
        "INSERT INTO a SELECT n, 'canary', n FROM generate_series(1, 9) n",
        "CREATE PUBLICATION p FOR TABLE a (id, n) WHERE (id > 4)",
    )
    table = await described(conn)
    found = await chunk(conn, table, (), 6)
    assert found.lines == [b"5\t5\n", b"6\t6\n"]


async def test_an_altered_table_gives_nothing(conn: Connection, dsn: str) -> None:
    await make(conn, "CREATE TABLE a (id int PRIMARY KEY)", "CREATE PUBLICATION p FOR TABLE a")
    table = await described(conn)
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as other:
        await other.execute("ALTER TABLE a ADD n int")
    assert await read_chunk(conn, "p", table, ALL, (), 5) is None
    assert conn.pgconn.transaction_status == 0


@pytest.mark.parametrize(("where", "expected"), [("nonsense", SourceRefused), ("id / (id - 2) > 0", SourceRefused)])
async def test_what_fails_leaves_the_connection_as_it_was(
    conn: Connection, where: str, expected: type[SourceError]
) -> None:
    await make(
        conn,
        "CREATE TABLE a (id int PRIMARY KEY)",
        "INSERT INTO a SELECT generate_series(1, 9)",
        "CREATE PUBLICATION p FOR TABLE a",
    )
    table = await described(conn)
    with pytest.raises(expected):
        await read_chunk(conn, "p", table, Asked(where=where), (), 5)
    assert (await chunk(conn, table)).lines == [b"1\n", b"2\n", b"3\n"]


async def test_a_condition_cannot_write(conn: Connection) -> None:
    await make(
        conn,
        "CREATE TABLE a (id int PRIMARY KEY)",
        "INSERT INTO a VALUES (1)",
        "CREATE FUNCTION harm() RETURNS bool LANGUAGE sql AS 'DELETE FROM public.a RETURNING true'",
        "CREATE PUBLICATION p FOR TABLE a",
    )
    with pytest.raises(SourceRefused, match="25006"):
        await read_chunk(conn, "p", await described(conn), Asked(where="public.harm()"), (), 5)
    assert (await chunk(conn, await described(conn))).lines == [b"1\n"]


async def test_a_locked_table_is_not_waited_for_long(conn: Connection, dsn: str) -> None:
    await make(conn, "CREATE TABLE a (id int PRIMARY KEY)", "CREATE PUBLICATION p FOR TABLE a")
    table = await described(conn)
    await conn.execute("SET lock_timeout = '50ms'")
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await other.execute("LOCK TABLE a IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(SourceUnavailable, match="55P03"):
            await read_chunk(conn, "p", table, ALL, (), 5)


async def test_more_than_a_chunk_may_bring_is_left_for_the_next(
    conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "CHUNK_BYTES_MAX", 2500)
    await make(
        conn,
        "CREATE TABLE a (id int PRIMARY KEY, filler text)",
        "INSERT INTO a SELECT n, repeat('x', 1000) FROM generate_series(1, 9) n",
        "CREATE PUBLICATION p FOR TABLE a",
    )
    found = await read_chunk(conn, "p", await described(conn), ALL, (), 9)
    assert found is not None
    assert ([line[:2] for line in found.lines], found.more, conn.closed) == ([b"1\t", b"2\t", b"3\t"], True, True)


async def test_who_waits_for_its_application_is_not_committing(conn: Connection, dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        cursor = await other.execute("SELECT pg_current_xact_id()::text::bigint")
        row = await cursor.fetchone()
        assert row is not None
        xid = row[0]
        await other.execute("SAVEPOINT s")
        await other.execute("SELECT pg_current_xact_id()")
        assert await reading.writing_now(conn) == {xid}
        wide = frozenset({xid + (1 << 32), 99_999})
        assert await reading.not_committing(conn, wide) == {xid + (1 << 32)}
        assert await reading.who_runs(conn, frozenset({xid})) == (other.info.backend_pid,)
