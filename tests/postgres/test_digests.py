"""Digests of both sides are equal where the rows are, range by range, whatever they hold."""

from __future__ import annotations

from itertools import pairwise

import pytest

from backend_watcher.decode.tables import make_table
from backend_watcher.errors import SourceRefused
from backend_watcher.postgres import catalog, digests, reading
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.digests import Bound, TooLong, is_ordered_alike, source_parts, target_parts, way_of
from backend_watcher.postgres.reading import ReadTable
from backend_watcher.postgres.replica_reading import TargetRows, target_rows
from backend_watcher.testing.builders import table

from .conftest import make

WIDE = {"id": "int8", 'a "b".%s': "text"}


async def described(conn: Connection, name: str) -> ReadTable:
    oid = (await catalog.find_tables(conn, [name])).tables[name].oid
    found = await reading.describe(conn, "p", oid)
    assert found is not None
    return found


async def both(conn: Connection, *statements: str) -> tuple[ReadTable, TargetRows]:
    """Make a table `many`, and return it as a source's and as a target's: one and the same."""
    await make(conn, *statements, "CREATE PUBLICATION p FOR TABLE many")
    read = await described(conn, "public.many")
    shape = table("public.many", WIDE, key=("id",))
    return read, await target_rows(conn, shape, "public", create=False)


MANY = 'CREATE TABLE many (id bigint PRIMARY KEY, "a ""b"".%s" text)'
FILL = "INSERT INTO many SELECT n, repeat('x', n % 7) FROM generate_series(-7, 40) n"


async def test_both_sides_say_the_same_of_the_same_rows(conn: Connection) -> None:
    read, rows = await both(conn, MANY, FILL, "INSERT INTO many VALUES (1000, NULL)")
    after: Bound = ()
    total, more = 0, True
    while more:
        found = await source_parts(conn, "p", read, after, 20, 5)
        assert found is not None
        parts = [part for *_, part in found]
        more = sum(count for count, _, _ in found) == 20
        bounds = [after, *(parts if more else [*parts[:-1], ()])]
        assert await target_parts(conn, rows, ("id",), bounds) == [(count, digest) for count, digest, _ in found]
        total += sum(count for count, _, _ in found)
        after = parts[-1]
    assert total == 49
    # Not a value, not a NULL for an empty text, not a row more or less goes unseen.
    whole: list[Bound] = [(), ()]
    (before,) = await target_parts(conn, rows, ("id",), whole)
    seen = {before}
    for statement in (
        """UPDATE many SET "a ""b"".%s" = 'y' WHERE id = 8""",
        """UPDATE many SET "a ""b"".%s" = '' WHERE id = 1000""",
        "UPDATE many SET id = 1001 WHERE id = 1000",
        # Two rows swap a value: a sum over columns would not see it.
        """UPDATE many SET "a ""b"".%s" = CASE id WHEN 1 THEN 'xx' ELSE 'x' END WHERE id IN (1, 2)""",
        "DELETE FROM many WHERE id = 1001",
    ):
        await make(conn, statement)
        seen.add((await target_parts(conn, rows, ("id",), whole))[0])
    assert len(seen) == 6


async def test_keys_of_several_columns(conn: Connection) -> None:
    await make(
        conn,
        "CREATE TABLE many (a int, b uuid, c inet, d bool, PRIMARY KEY (b, d, c, a))",
        "INSERT INTO many SELECT n, ('00000000-0000-0000-0000-00000000000' || n % 3)::uuid, '10.0.0.1', n > 5"
        " FROM generate_series(1, 12) n",
        "CREATE PUBLICATION p FOR TABLE many",
    )
    read = await described(conn, "public.many")
    assert is_ordered_alike(read)
    found = await source_parts(conn, "p", read, (), 12, 4)
    assert found is not None
    assert [count for count, _, _ in found] == [4, 4, 4]
    assert found[0][2] == ("00000000-0000-0000-0000-000000000000", "true", "10.0.0.1/32", "12")
    rest = await source_parts(conn, "p", read, found[0][2], 12, 4)
    assert rest == found[1:]
    assert await source_parts(conn, "p", read, found[2][2], 12, 4) == []
    oids = {"a": 23, "b": 2950, "c": 869, "d": 16}
    columns = [(name, oid, -1, True) for name, oid in oids.items()]
    shape = make_table(1, "public", "many", "d", columns, read.key)
    rows = await target_rows(conn, shape, "public", create=False)
    bounds: list[Bound] = [(), *(part for *_, part in found), ()]
    assert await target_parts(conn, rows, read.key, bounds) == [*((n, total) for n, total, _ in found), (0, 0)]
    for one, other in pairwise(bounds):
        assert len(await target_parts(conn, rows, read.key, [one, other])) == 1


async def test_an_altered_table_is_noticed(conn: Connection) -> None:
    read, _ = await both(conn, MANY)
    await make(conn, "ALTER TABLE many ADD COLUMN d int")
    assert await source_parts(conn, "p", read, (), 10, 5) is None
    await make(conn, "ALTER PUBLICATION p DROP TABLE many")
    with pytest.raises(SourceRefused, match="not in publication"):
        await source_parts(conn, "p", read, (), 10, 5)


async def test_nothing_takes_longer_than_it_may(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    read, rows = await both(conn, MANY, "INSERT INTO many SELECT n, 'x' FROM generate_series(1, 20000) n")
    monkeypatch.setattr(digests, "QUERY_SECONDS_MAX", 0.001)
    with pytest.raises(TooLong):
        await source_parts(conn, "p", read, (), 20_000, 5)
    monkeypatch.undo()
    # The session is as it was.
    assert len(await source_parts(conn, "p", read, (), 20, 5) or ()) == 4
    await conn.execute("SET statement_timeout = 1")
    with pytest.raises(TooLong):
        await target_parts(conn, rows, ("id",), [(), ()])


async def test_two_servers_of_one_kind_go_the_same_way(conn: Connection) -> None:
    assert (await way_of(conn)).startswith("UTF8 ")
    assert await way_of(conn) == await way_of(conn)


@pytest.mark.parametrize(("kind", "alike"), [("timestamptz", True), ("numeric(9, 2)", True), ("text", False)])
async def test_a_collation_is_not_relied_on(conn: Connection, kind: str, alike: bool) -> None:
    await make(conn, f"CREATE TABLE many (a int, b {kind}, PRIMARY KEY (a, b))", "CREATE PUBLICATION p FOR TABLE many")
    assert is_ordered_alike(await described(conn, "public.many")) is alike
