"""Publications made, aligned and dropped, and tables that must not be in one."""

from __future__ import annotations

import pytest

from backend_watcher.errors import PreflightFailed, PublicationLost, SourceRefused, SourceUnavailable
from backend_watcher.postgres import catalog, publications
from backend_watcher.postgres.connect import Connection, connect
from backend_watcher.postgres.identity import ALL_OPERATIONS
from backend_watcher.postgres.names import format_name, quote

from .conftest import make, make_role
from .test_names import HOSTILE


async def test_created_looked_at_aligned_and_dropped(conn: Connection) -> None:
    await make(
        conn,
        "CREATE TABLE a (id int PRIMARY KEY)",
        "CREATE TABLE b (id int PRIMARY KEY)",
        "CREATE TABLE c (id int PRIMARY KEY)",
    )
    found = await catalog.tables(conn, ["a", "b", "c"])
    a, b, c = found.values()
    assert await publications.look(conn, "shop") is None
    await publications.create(conn, "shop", [a, b])
    facts = await publications.look(conn, "shop")
    assert facts is not None
    assert (facts.name, facts.all_tables, facts.via_root, facts.operations) == ("shop", False, True, ALL_OPERATIONS)
    assert (facts.owner, facts.owned, facts.oids) == ("postgres", True, {a.oid, b.oid})

    done = await publications.align(conn, "shop", [b, c])
    assert done.added == (c,)
    assert [table.quoted for table in done.extra] == ["public.a"]
    done = await publications.align(conn, "shop", [b, c])
    assert done.added == ()
    facts = await publications.look(conn, "shop")
    assert facts is not None
    assert facts.oids == {a.oid, b.oid, c.oid}
    assert facts.lacking(found.values()) == ()

    assert await publications.drop(conn, "shop")
    assert not await publications.drop(conn, "shop")
    with pytest.raises(PublicationLost):
        await publications.align(conn, "shop", [a])


async def test_no_table_is_published_whose_updates_would_fail(conn: Connection) -> None:
    await make(conn, "CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE harmed (id int NOT NULL UNIQUE)")
    found = await catalog.tables(conn, ["a", "harmed"])
    with pytest.raises(PreflightFailed, match="harmed must not be published") as caught:
        await publications.create(conn, "shop", list(found.values()))
    assert await publications.look(conn, "shop") is None
    await publications.create(conn, "shop", [found["a"]])
    with pytest.raises(PreflightFailed):
        await publications.align(conn, "shop", list(found.values()))
    await make(conn, "INSERT INTO harmed VALUES (1)", "UPDATE harmed SET id = 2")

    await make(conn, caught.value.remedy)
    await publications.align(conn, "shop", list((await catalog.tables(conn, ["a", "harmed"])).values()))
    await make(conn, "UPDATE harmed SET id = 3")


async def test_inserts_alone_ask_for_no_identity(conn: Connection) -> None:
    await make(conn, "CREATE TABLE log (line text)")
    table = (await catalog.tables(conn, ["log"]))["log"]
    await publications.create(conn, "shop", [table], operations=frozenset({"insert", "truncate"}))
    facts = await publications.look(conn, "shop")
    assert facts is not None
    assert facts.operations == {"insert", "truncate"}
    await make(conn, "INSERT INTO log VALUES ('a')", "UPDATE log SET line = 'b'")
    with pytest.raises(SourceRefused, match="no operation is called upsert"):
        await publications.create(conn, "other", [table], operations=frozenset({"upsert"}))


async def test_hostile_names_are_names(conn: Connection) -> None:
    await conn.execute("CREATE TABLE public.x (id int PRIMARY KEY)")
    for name in HOSTILE:
        await conn.execute(f"CREATE SCHEMA {quote(name)}".encode())
        await conn.execute(f"CREATE TABLE {quote(name)}.{quote(name)} (id int PRIMARY KEY)".encode())
        found = list((await catalog.tables(conn, [format_name(name, name), "x"])).values())
        await publications.create(conn, name, found[1:])
        await publications.align(conn, name, found)
        facts = await publications.look(conn, name)
        assert facts is not None
        assert facts.name == name
        assert {table.name for table in facts.tables} == {name, "x"}
        assert await publications.drop(conn, name)
        # What is shown to a person does the same as what we run.
        await conn.execute(publications.create_statement(name, found).encode())
        facts = await publications.look(conn, name)
        assert facts is not None
        assert (facts.operations, facts.via_root, len(facts.tables)) == (ALL_OPERATIONS, True, 2)


async def test_what_somebody_else_made_is_seen_as_it_is(conn: Connection) -> None:
    await make(
        conn,
        "CREATE TABLE a (id int PRIMARY KEY, b int)",
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY LIST (id)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)",
        "CREATE PUBLICATION every FOR ALL TABLES WITH (publish = 'insert, delete')",
        "CREATE PUBLICATION leaves FOR TABLE p",
    )
    facts = await publications.look(conn, "every")
    assert facts is not None
    assert (facts.all_tables, facts.via_root, facts.operations) == (True, False, {"insert", "delete"})
    assert {table.quoted: (table.named, table.published) for table in facts.tables} == {
        "public.a": (False, True),
        "public.p1": (False, True),
    }
    facts = await publications.look(conn, "leaves")
    assert facts is not None
    assert {table.quoted: (table.named, table.published) for table in facts.tables} == {
        "public.p": (True, False),
        "public.p1": (False, True),
    }


async def test_filters_and_column_lists_are_seen(conn: Connection) -> None:
    if conn.info.server_version < 150_000:
        pytest.skip("filters came with PostgreSQL 15")
    await make(
        conn,
        "CREATE TABLE a (id int PRIMARY KEY, b int)",
        "CREATE TABLE c (id int PRIMARY KEY, b int)",
        "CREATE PUBLICATION narrow FOR TABLE a (id), c WHERE (id > 5)",
    )
    facts = await publications.look(conn, "narrow")
    assert facts is not None
    assert [(t.name, t.has_column_list, t.row_filter) for t in facts.tables] == [
        ("a", True, None),
        ("c", False, "(id > 5)"),
    ]


async def test_refusals_of_the_server_are_told(dsn: str, conn: Connection) -> None:
    await make(conn, "CREATE TABLE a (id int PRIMARY KEY)")
    async with await connect(await make_role(conn, dsn), purpose="test") as watcher:
        found = await catalog.tables(watcher, ["a"])
        with pytest.raises(SourceRefused, match="42501"):
            await publications.create(watcher, "shop", list(found.values()))


async def test_a_locked_table_is_not_waited_for_long(dsn: str, conn: Connection) -> None:
    await make(conn, "CREATE TABLE a (id int PRIMARY KEY)")
    found = await catalog.tables(conn, ["a"])
    async with await connect(dsn, purpose="locker") as locker, locker.transaction():
        await locker.execute("LOCK TABLE public.a IN ACCESS EXCLUSIVE MODE")
        await conn.execute("SET lock_timeout = '50ms'")
        with pytest.raises(SourceUnavailable, match="55P03"):
            await publications.create(conn, "shop", list(found.values()))
