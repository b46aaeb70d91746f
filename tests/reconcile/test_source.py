"""Rows of a real table become changes as capture would make them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from backend_watcher.errors import ConfigError, SourceRefused, SourceUnavailable
from backend_watcher.events.change import READ
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.reading import Asked
from backend_watcher.reconcile.source import Source
from postgres.conftest import conn, dsn, make, server  # noqa: F401 fixtures
from skips import needs


@pytest.fixture
async def source(dsn: str, conn: Connection) -> AsyncIterator[Source]:  # noqa: F811
    await make(
        conn,
        "CREATE TABLE pairs (a int, b text, c numeric, PRIMARY KEY (b, a))",
        "CREATE TABLE bag (a int)",
        "INSERT INTO pairs SELECT n, 'b' || n % 3, n FROM generate_series(1, 10) n",
        "CREATE PUBLICATION p FOR TABLE pairs, bag",
        "CREATE TABLE hidden (id int PRIMARY KEY)",
    )
    found = Source(dsn, "p")
    yield found
    await found.close()


async def test_rows_come_in_chunks_and_by_their_keys(source: Source) -> None:
    table = await source.table("public.pairs")
    assert (table.shape.primary_key, table.shape.full_name) == (("b", "a"), "public.pairs")
    first = await source.read(table, Asked(), (), 4)
    rest = await source.read(table, Asked(), first.after, 40)
    assert (first.more, rest.more) == (True, False)
    seen = [(one.row["b"], one.row["a"]) for one in [*first.changes, *rest.changes]]
    assert seen == sorted((f"b{n % 3}", n) for n in range(1, 11))
    assert {one.code for one in first.changes} == {READ}
    assert table.keys_of(first.changes[0]) == {("b0", "3")}
    chosen = await source.read(table, Asked(None, (("b1", "4"), ("b1", "5"))), (), 3)
    assert [one.row["c"] for one in chosen.changes] == [4]
    nothing = await source.read(table, Asked("false"), (), 1)
    assert (nothing.changes, nothing.more, nothing.snapshot.count(":")) == ([], True, 2)


async def test_an_altered_table_is_read_as_it_is_now(source: Source, conn: Connection) -> None:  # noqa: F811
    table = await source.table("public.pairs")
    await make(conn, "ALTER TABLE pairs ADD COLUMN d int DEFAULT 7")
    rows = await source.read(table, Asked(), (), 1)
    assert rows.changes[0].row["d"] == 7


async def test_tables_that_cannot_be_read(source: Source) -> None:
    with pytest.raises(ConfigError, match=r"public\.bag has no key"):
        await source.table("public.bag")
    with pytest.raises(SourceRefused, match="is not there"):
        await source.table("public.nowhere")
    with pytest.raises(SourceRefused, match="not in publication"):
        await source.table("public.hidden")


async def test_it_only_reads_but_for_its_marks(source: Source) -> None:
    first = await source.mark()
    assert await source.mark() > first
    await source.table("public.pairs")
    reader = await source._reader()
    row = await (await reader.execute("SELECT current_setting('transaction_read_only')")).fetchone()
    assert row == ("on",)
    assert await source.running() == frozenset()
    assert await source.not_committing(frozenset()) == frozenset()


async def test_rows_up_to_a_key(source: Source) -> None:
    table = await source.table("public.pairs")
    rows = await source.read(table, Asked(upto=("b1", "4")), ("b0", "6"), 40)
    assert [(one.row["b"], one.row["a"]) for one in rows.changes] == [("b0", 9), ("b1", 1), ("b1", 4)]


async def test_digests_where_ranges_are_the_same_everywhere(source: Source, conn: Connection) -> None:  # noqa: F811
    await make(
        conn,
        "CREATE TABLE many (id int PRIMARY KEY, b text)",
        "INSERT INTO many SELECT n, 'b' FROM generate_series(1, 10) n",
        "ALTER PUBLICATION p ADD TABLE many",
    )
    assert await source.digest_way(await source.table("public.pairs")) == ""
    many = await source.table("public.many")
    assert await source.digest_way(many) != ""
    before = await source.digests(many, ("2",), 6, 3)
    assert [(rows, last) for rows, _, last in before or ()] == [(3, ("5",)), (3, ("8",))]
    # Altered meanwhile, it is described again; another key is another table.
    await make(conn, "ALTER TABLE many ADD COLUMN c int DEFAULT 7")
    after = await source.digests(many, ("2",), 6, 3)
    assert [rows for rows, _, _ in after or ()] == [3, 3]
    assert before != after
    await make(conn, "ALTER TABLE many ALTER COLUMN id TYPE bigint")
    with pytest.raises(SourceUnavailable, match=r"the key of public\.many was altered"):
        await source.digests(many, (), 6, 3)


async def test_a_filter_is_left_to_the_source(source: Source, conn: Connection) -> None:  # noqa: F811
    needs(15, "row filters", conn.info.server_version)
    await make(conn, "CREATE TABLE few (id int PRIMARY KEY)", "ALTER PUBLICATION p ADD TABLE few WHERE (id > 3)")
    assert await source.digest_way(await source.table("public.few")) == ""
