"""What is seen around a stream, on a real server."""

from __future__ import annotations

from backend_watcher.postgres import slots
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.surroundings import EVERY_TABLE, Surroundings, look
from skips import needs

from .conftest import make, reading

NAMES = [("public", "a"), ("public", "b")]
FILTERS_SINCE = 150_000


async def seen(conn: Connection, publication: str = "p", oids: tuple[int, ...] = ()) -> Surroundings:
    return await look(conn, slot="s", pid=0, publication=publication, names=NAMES, oids=oids)


def entries(around: Surroundings) -> dict[str, tuple[int, ...]]:
    return {table.full_name: table.entries for table in around.tables}


async def test_where_nothing_is(conn: Connection) -> None:
    around = await seen(conn)
    assert (around.slot, around.streams, around.sync_state, around.publication, around.tables) == (
        None,
        False,
        None,
        None,
        (),
    )


async def test_the_slot_and_who_reads_it(conn: Connection, dsn: str) -> None:
    await make(conn, "CREATE TABLE a (id int)", "CREATE PUBLICATION p FOR TABLE a")
    await slots.create(conn, "s")
    async with reading(dsn, "s", "p") as pid:
        around = await look(conn, slot="s", pid=pid, publication="p", names=NAMES)
        assert around.slot is not None
        assert (around.slot.active_pid, around.streams, around.sync_state) == (pid, True, "async")
        assert around.slot == await slots.look(conn, "s")


async def test_an_entry_is_another_one_after_every_change(conn: Connection) -> None:
    await make(conn, "CREATE TABLE a (id int PRIMARY KEY, n int)", "CREATE PUBLICATION p FOR TABLE a")
    first = entries(await seen(conn))["public.a"]
    assert len(first) == 1
    parts = ("SET TABLE a WHERE (id > 1)", "SET TABLE a (id)") if conn.info.server_version >= FILTERS_SINCE else ()
    for change in (*parts, "DROP TABLE a"):
        before = entries(await seen(conn))["public.a"]
        await make(conn, f"ALTER PUBLICATION p {change}")
        assert set(entries(await seen(conn))["public.a"]).isdisjoint(before)
    await make(conn, "ALTER PUBLICATION p ADD TABLE a")
    await make(conn, "ALTER PUBLICATION p SET TABLE a")
    again = entries(await seen(conn))["public.a"]
    assert set(again).isdisjoint(first)
    await make(conn, "CREATE TABLE b (id int)", "ALTER PUBLICATION p SET TABLE a, b")
    assert entries(await seen(conn))["public.a"] == again, "what is not changed stays"


async def test_every_alter_touches_the_publication_and_adding_a_table_does_not(conn: Connection) -> None:
    await make(conn, "CREATE TABLE a (id int)", "CREATE PUBLICATION p")
    first = (await seen(conn)).publication
    await make(conn, "ALTER PUBLICATION p ADD TABLE a")
    assert (await seen(conn)).publication == first
    assert first is not None
    assert first.operations == ("insert", "update", "delete", "truncate")
    await make(conn, "ALTER PUBLICATION p SET (publish = 'insert')")
    second = (await seen(conn)).publication
    await make(conn, "ALTER PUBLICATION p SET (publish = 'insert, update, delete, truncate')")
    third = (await seen(conn)).publication
    assert second is not None
    assert third is not None
    assert second.operations == ("insert",)
    assert (third.operations, third.touched != first.touched) == (first.operations, True)


async def test_tables_that_are_covered_without_being_named(conn: Connection) -> None:
    await make(
        conn,
        "CREATE TABLE a (id int) PARTITION BY LIST (id)",
        "CREATE TABLE b PARTITION OF a FOR VALUES IN (1)",
        "CREATE PUBLICATION root FOR TABLE a",
        "CREATE PUBLICATION every FOR ALL TABLES",
    )
    root = entries(await seen(conn, "root"))
    assert root["public.a"] == root["public.b"]
    assert entries(await seen(conn, "every")) == {"public.a": (EVERY_TABLE,), "public.b": (EVERY_TABLE,)}


async def test_a_schema_that_is_covered_as_a_whole(conn: Connection) -> None:
    needs(15, "a publication of schemas", conn.info.server_version)
    await make(conn, "CREATE TABLE a (id int)", "CREATE TABLE b (id int)")
    await make(conn, "CREATE PUBLICATION whole FOR TABLES IN SCHEMA public")
    whole = entries(await seen(conn, "whole"))
    assert whole["public.a"] == whole["public.b"] != ()


async def test_a_table_is_found_by_its_name_and_by_what_it_was(conn: Connection) -> None:
    await make(conn, "CREATE TABLE a (id int)", "CREATE PUBLICATION p FOR TABLE a")
    (table,) = (await seen(conn)).tables
    await make(conn, "ALTER TABLE a RENAME TO c", "CREATE TABLE a (id int)")
    found = {one.oid: one.full_name for one in (await seen(conn, oids=(table.oid,))).tables}
    assert found[table.oid] == "public.c"
    assert sorted(found.values()) == ["public.a", "public.c"]
