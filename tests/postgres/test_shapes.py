"""What tables look like, with the server as the judge, and what the fingerprint does not miss."""

from __future__ import annotations

import msgspec

from backend_watcher.postgres import shapes, surroundings
from backend_watcher.postgres.connect import Connection, connect
from backend_watcher.postgres.shapes import Shapes
from backend_watcher.postgres.surroundings import SCHEMAS_SINCE

from .conftest import make, make_role

NAMES = [("public", "t"), ("public", "r")]
TABLES = (
    "CREATE TYPE mood AS ENUM ('good', 'bad')",
    "CREATE TYPE place AS (city text, moods mood[])",
    "CREATE DOMAIN short AS varchar(5)",
    'CREATE TABLE t ("Id" int, v numeric(8,2) DEFAULT 1, m mood, p place, s short, x int, PRIMARY KEY (v, "Id"))',
    "ALTER TABLE t DROP COLUMN x",
    "CREATE TABLE r (id int PRIMARY KEY) PARTITION BY RANGE (id)",
    "CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (0) TO (10)",
    "CREATE TABLE r2 PARTITION OF r FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id)",
    "CREATE TABLE r21 PARTITION OF r2 FOR VALUES FROM (10) TO (15)",
    "CREATE PUBLICATION p FOR TABLE t, r WITH (publish_via_partition_root)",
)


async def fingerprint(conn: Connection) -> str:
    seen = await surroundings.look(conn, slot="", pid=0, publication="p", names=NAMES, fingerprint=True)
    return seen.fingerprint


async def look(conn: Connection, known: tuple[int, ...] = ()) -> Shapes:
    return await shapes.look(conn, "p", NAMES, [], known=known)


async def test_everything_that_matters_is_there(conn: Connection) -> None:
    await make(conn, *TABLES)
    seen = await look(conn)
    by_name = {one.full_name: one for one in seen.relations.values()}
    assert sorted(by_name) == ["public.r", "public.r1", "public.r2", "public.r21", "public.t"]
    t, r21 = by_name["public.t"], by_name["public.r21"]
    assert [(c.number, c.name, c.type_name, c.not_null, c.filled) for c in t.columns] == [
        (1, "Id", "integer", True, False),
        (2, "v", "numeric(8,2)", True, True),
        (3, "m", "public.mood", False, False),
        (4, "p", "public.place", False, False),
        (5, "s", "public.short", False, False),
    ]
    assert (t.key, t.kind, t.replica_identity, t.identified, t.published, t.parent) == (
        (2, 1),
        "r",
        "d",
        True,
        True,
        None,
    )
    assert (r21.parent, r21.columns, r21.born, r21.published) == (by_name["public.r2"].oid, (), True, False)
    assert by_name["public.r"].storage == 0 < r21.storage
    types = {one.name: one for one in seen.types.values()}
    assert sorted(types) == ["public.mood", "public.mood[]", "public.place", "public.short"]
    assert [label for _, label in types["public.mood"].labels] == ["good", "bad"]
    assert [(n, name, kind) for n, name, _, kind in types["public.place"].attributes] == [
        (1, "city", "text"),
        (2, "moods", "public.mood[]"),
    ]
    assert types["public.mood"].oid in types["public.mood[]"].parts
    assert msgspec.json.decode(msgspec.json.encode(seen), type=Shapes) == seen


async def test_what_was_altered_since_it_was_made_is_told_from_what_was_not(conn: Connection) -> None:
    await make(conn, *TABLES)
    await make(conn, "CREATE TABLE s (id serial PRIMARY KEY, m mood NOT NULL DEFAULT 'bad', p place)")
    names = [*NAMES, ("public", "s")]
    seen = await shapes.look(conn, "p", names, [])
    assert {one.name for one in seen.relations.values() if one.altered} == {"t"}
    assert not any(one.altered for one in seen.types.values())
    await make(conn, "ALTER TABLE r21 ALTER id SET STATISTICS 5", "ALTER TYPE mood RENAME VALUE 'bad' TO 'sad'")
    await make(conn, "ALTER TYPE place ADD ATTRIBUTE zip text", "VACUUM FULL s", "ANALYZE s", "CREATE INDEX ON s (m)")
    seen = await shapes.look(conn, "p", names, [])
    assert {one.name for one in seen.relations.values() if one.altered} == {"t", "r21"}
    assert {one.name for one in seen.types.values() if one.altered} == {"public.mood", "public.place"}


async def test_what_a_publication_sends_is_every_table_by_its_root(conn: Connection) -> None:
    await make(
        conn, *TABLES, "CREATE UNLOGGED TABLE u (id int)", "CREATE SCHEMA attic", "CREATE TABLE attic.a (id int)"
    )
    assert await shapes.sent(conn, "p") == [("public", "r"), ("public", "t")]
    await make(conn, "CREATE PUBLICATION every FOR ALL TABLES", "CREATE PUBLICATION part FOR TABLE r21")
    assert await shapes.sent(conn, "every") == [("attic", "a"), ("public", "r"), ("public", "t")]
    assert await shapes.sent(conn, "part") == [("public", "r")]
    if conn.info.server_version >= SCHEMAS_SINCE:
        await make(conn, "CREATE PUBLICATION whole FOR TABLES IN SCHEMA attic")
        assert await shapes.sent(conn, "whole") == [("attic", "a")]


async def test_a_table_is_found_by_the_oid_it_was_known_by(conn: Connection) -> None:
    await make(conn, *TABLES)
    (t,) = [one.oid for one in (await look(conn)).relations.values() if one.name == "t"]
    await make(conn, "DROP PUBLICATION p", "ALTER TABLE t RENAME TO other")
    assert t not in (await look(conn)).relations
    seen = await shapes.look(conn, "p", NAMES, [t])
    assert (seen.relations[t].full_name, seen.relations[t].published) == ("public.other", False)


async def test_of_new_partitions_it_is_said_whether_they_are_empty(conn: Connection, dsn: str) -> None:
    await make(conn, *TABLES)
    known = tuple((await look(conn)).relations)
    await make(
        conn,
        "CREATE TABLE r3 PARTITION OF r FOR VALUES FROM (20) TO (30)",
        "CREATE TABLE r4 PARTITION OF r FOR VALUES FROM (30) TO (40)",
        "INSERT INTO r VALUES (31)",
        "CREATE TABLE r5 (id int PRIMARY KEY)",
        "ALTER TABLE r ATTACH PARTITION r5 FOR VALUES FROM (40) TO (50)",
    )
    seen = {one.name: one for one in (await look(conn, known)).relations.values()}
    assert [(seen[n].born, seen[n].empty) for n in ("r1", "r3", "r4", "r5")] == [
        (True, False),
        (True, True),
        (True, False),
        (False, False),
    ]
    async with await connect(dsn, purpose="test") as other, other.transaction():
        # Locked for long by a migration: it is not waited for longer than a moment, and not known to be empty.
        await other.execute("LOCK TABLE public.r3 IN ACCESS EXCLUSIVE MODE")
        seen = {one.name: one for one in (await look(conn, known)).relations.values()}
        assert not seen["r3"].empty


async def test_a_lock_that_a_migration_holds_holds_nothing_up(conn: Connection, dsn: str) -> None:
    await make(conn, *TABLES)
    before, shape = await fingerprint(conn), await look(conn)
    async with await connect(dsn, purpose="test") as other, other.transaction():
        for table in ("t", "r", "r1", "r2", "r21"):
            await other.execute(f"LOCK TABLE public.{table} IN ACCESS EXCLUSIVE MODE".encode())
        await conn.execute("SET lock_timeout = '1ms'")
        assert (await fingerprint(conn), await look(conn)) == (before, shape)


async def test_the_fingerprint_sees_what_the_look_would_see(conn: Connection) -> None:
    await make(conn, *TABLES)
    before = await fingerprint(conn)
    for statement in (
        "ALTER TABLE t ADD w int",
        "ALTER TABLE r1 REPLICA IDENTITY FULL",
        "ALTER TYPE mood ADD VALUE 'fine'",
        "ALTER TYPE place RENAME ATTRIBUTE city TO town",
        "ALTER TABLE t DROP CONSTRAINT t_pkey",
        "CREATE TABLE r22 PARTITION OF r2 FOR VALUES FROM (15) TO (20)",
        "ALTER TABLE r2 DETACH PARTITION r22",
        "ALTER PUBLICATION p SET (publish = 'insert')",
        "ALTER SCHEMA public RENAME TO private",
    ):
        await make(conn, statement)
        after = await fingerprint(conn)
        assert after != before, statement
        before = after


async def test_the_fingerprint_stays_where_nothing_is_different(conn: Connection) -> None:
    await make(conn, *TABLES)
    before = await fingerprint(conn)
    await make(
        conn,
        "INSERT INTO t VALUES (1, 2)",
        "UPDATE t SET m = 'bad'",
        "VACUUM",
        "ANALYZE",
        "CHECKPOINT",
        "CREATE TABLE other (id int PRIMARY KEY)",
        "BEGIN",
        "ALTER TABLE t ADD w int",
        "ROLLBACK",
    )
    assert await fingerprint(conn) == before


async def test_a_table_that_all_tables_would_harm_is_seen(conn: Connection) -> None:
    await make(conn, *TABLES, "DROP PUBLICATION p", "CREATE PUBLICATION p FOR ALL TABLES")
    before, seen = await fingerprint(conn), await look(conn)
    assert all(one.identified for one in seen.relations.values())
    await make(conn, "CREATE TABLE bare (id int)")
    assert await fingerprint(conn) != before
    (bare,) = [one for one in (await look(conn)).relations.values() if one.name == "bare"]
    assert (bare.identified, bare.published) == (False, True)


async def test_a_role_with_few_rights_sees_the_same(conn: Connection, dsn: str) -> None:
    await make(conn, *TABLES)
    async with await connect(await make_role(conn, dsn), purpose="test") as weak:
        assert await fingerprint(weak) == await fingerprint(conn)
        assert await look(weak) == await look(conn)
