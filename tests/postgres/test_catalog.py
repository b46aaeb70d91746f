"""What the catalogs say of servers and tables, with the server as the judge."""

from __future__ import annotations

import pytest

from backend_watcher.errors import ConfigError, PreflightFailed
from backend_watcher.postgres import catalog, surroundings
from backend_watcher.postgres.connect import Connection, connect
from backend_watcher.postgres.names import format_name, quote

from .conftest import make, make_role
from .test_names import HOSTILE

_BY_INDEX = "(id int NOT NULL); CREATE UNIQUE INDEX i ON t (id); ALTER TABLE t REPLICA IDENTITY USING INDEX i"


async def test_the_server_says_what_it_is(dsn: str, conn: Connection) -> None:
    server = await catalog.server(conn)
    async with await connect(dsn, purpose="capture", replication=True) as walsender:
        row = await (await walsender.execute("IDENTIFY_SYSTEM")).fetchone()
    assert row is not None
    assert (server.system_identifier, server.timeline) == (str(row[0]), int(row[1]))
    assert server.major == conn.info.server_version // 10_000
    assert server.flush_lsn > 0
    assert (server.wal_level, server.in_recovery, server.encoding) == ("logical", False, "UTF8")
    assert (server.database, server.role) == (dsn.rpartition("/")[2], "postgres")
    assert server.max_slot_wal_keep_bytes == 2**30
    assert server.idle_slot_timeout_seconds is None
    assert server.wal_sender_timeout_seconds > 0
    assert (server.is_superuser, server.has_replication, server.can_create) == (True, True, True)


async def test_a_role_with_few_rights_can_ask_the_same(dsn: str, conn: Connection) -> None:
    whole = await catalog.server(conn)
    async with await connect(await make_role(conn, dsn, ""), purpose="test") as weak:
        server = await catalog.server(weak)
    assert server.system_identifier == whole.system_identifier
    assert (server.is_superuser, server.has_replication, server.can_create) == (False, False, False)
    async with await connect(await make_role(conn, dsn, "REPLICATION", "second"), purpose="test") as watcher:
        assert (await catalog.server(watcher)).has_replication


async def test_managed_services_are_known_by_their_settings(dsn: str, conn: Connection) -> None:
    await conn.execute("CREATE ROLE rds_replication")
    role = await make_role(conn, dsn, "IN ROLE rds_replication")
    async with await connect(f"{role}?options=-c%20rds.logical_replication%3D0", purpose="test") as watcher:
        server = await catalog.server(watcher)
    assert (server.provider, server.has_replication) == ("rds", True)


async def test_tables_are_found_by_their_names(conn: Connection) -> None:
    await make(
        conn,
        "CREATE SCHEMA shop",
        "CREATE TABLE products (id bigint, name text, price numeric(10,2), PRIMARY KEY (id))",
        'CREATE TABLE shop."Weird.Name" (a int, b int, c int, PRIMARY KEY (c, a) INCLUDE (b))',
        "ALTER TABLE products DROP COLUMN name, ADD COLUMN twice numeric GENERATED ALWAYS AS (price * 2) STORED",
    )
    names = ["products", "public.products", 'shop."Weird.Name"']
    found = await catalog.tables(conn, names)
    assert list(found) == names
    products, weird = found["products"], found['shop."Weird.Name"']
    assert products == found["public.products"]
    assert (products.full_name, products.quoted, products.kind) == ("public.products", "public.products", "r")
    assert products.primary_key == ("id",)
    assert [(c.name, c.type_oid, c.type_name, c.generated) for c in products.columns] == [
        ("id", 20, "bigint", ""),
        ("price", 1700, "numeric(10,2)", ""),
        ("twice", 1700, "numeric", "s"),
    ]
    assert products.columns[1].modifier == (10 << 16) + 2 + 4
    assert (weird.full_name, weird.primary_key) == ('shop."Weird.Name"', ("c", "a"))
    assert (products.is_publishable, products.is_identified, products.owned, products.can_select) == (True,) * 4
    assert await catalog.primary_keys(conn, [products.oid, weird.oid, 1]) == {
        products.oid: ("id",),
        weird.oid: ("c", "a"),
        1: (),
    }
    assert await catalog.primary_key(conn, weird.oid) == ("c", "a")


async def test_hostile_names_are_names(conn: Connection) -> None:
    for name in HOSTILE:
        await conn.execute(f"CREATE SCHEMA {quote(name)}".encode())
        await conn.execute(f"CREATE TABLE {quote(name)}.{quote(name)} ({quote(name)} int PRIMARY KEY)".encode())
    found = await catalog.tables(conn, [format_name(name, name) for name in HOSTILE])
    for name, table in zip(HOSTILE, found.values(), strict=True):
        assert (table.schema, table.name, table.primary_key) == (name, name, (name,))
        assert table.quoted.isprintable()
        assert table.without_old_values == (table.quoted,)
        await conn.execute(f"ALTER TABLE {table.quoted} REPLICA IDENTITY FULL".encode())
    found = await catalog.tables(conn, found)
    assert [table.without_old_values for table in found.values()] == [()] * len(HOSTILE)


async def test_a_name_that_is_too_long_is_not_cut(conn: Connection) -> None:
    await make(conn, f"CREATE TABLE {'x' * 63} (id int)")
    found = await catalog.find_tables(conn, ["x" * 64])
    assert found.missing == {"x" * 64: (f"public.{'x' * 63}",)}


async def test_what_is_missing_is_reported_with_what_may_have_been_meant(conn: Connection) -> None:
    await make(
        conn,
        "CREATE SCHEMA shop",
        "CREATE TABLE shop.orders (id int)",
        'CREATE TABLE "Customers" (id int)',
        "CREATE TABLE products (id int)",
        'CREATE TABLE "pro.ducts" (id int)',
    )
    found = await catalog.find_tables(conn, ["orders", "customers", "product", "zebra", "products"])
    assert list(found.tables) == ["products"]
    assert found.missing["orders"] == ("shop.orders",)
    assert found.missing["customers"] == ("public.Customers",)
    assert set(found.missing["product"]) == {"public.products", 'public."pro.ducts"'}
    assert found.missing["zebra"] == ()
    with pytest.raises(PreflightFailed) as caught:
        await catalog.tables(conn, ["orders", "zebra"])
    assert caught.value.faults == [
        "table 'orders' does not exist; did you mean 'shop.orders'?",
        "table 'zebra' does not exist",
    ]
    with pytest.raises(ConfigError):
        await catalog.find_tables(conn, ["a.b.c"])


@pytest.mark.parametrize(
    ("definition", "identified", "candidate"),
    [
        ("(id int PRIMARY KEY)", True, "t_pkey"),
        ("(id int)", False, None),
        ("(id int PRIMARY KEY DEFERRABLE)", False, None),
        ("(id int NOT NULL UNIQUE)", False, "t_id_key"),
        ("(id int UNIQUE)", False, None),
        ("(id int PRIMARY KEY); ALTER TABLE t REPLICA IDENTITY NOTHING", False, "t_pkey"),
        ("(id int); ALTER TABLE t REPLICA IDENTITY FULL", True, None),
        (_BY_INDEX, True, "i"),
        (
            f"{_BY_INDEX}; DROP INDEX i",
            False,
            None,
        ),
    ],
)
async def test_identity_is_judged_as_postgresql_does(
    conn: Connection, definition: str, identified: bool, candidate: str | None
) -> None:
    await make(conn, f"CREATE TABLE t {definition}")
    table = (await catalog.tables(conn, ["t"]))["t"]
    assert (table.is_identified, table.candidate_index) == (identified, candidate)
    # The judge is the server itself: once published, does an UPDATE still work?
    await make(conn, "CREATE PUBLICATION p FOR TABLE t", "INSERT INTO t VALUES (1)")
    try:
        await make(conn, "UPDATE t SET id = 2")
    except Exception:
        assert not identified
    else:
        assert identified


async def test_a_partitioned_table_is_judged_by_its_leaves(conn: Connection) -> None:
    await make(
        conn,
        "CREATE TABLE logs (id int, day int, PRIMARY KEY (id, day)) PARTITION BY LIST (day)",
        "CREATE TABLE logs_1 PARTITION OF logs FOR VALUES IN (1)",
        'CREATE TABLE "logs 2" PARTITION OF logs FOR VALUES IN (2) PARTITION BY LIST (id)',
        'CREATE TABLE logs_2a PARTITION OF "logs 2" DEFAULT',
        "ALTER TABLE logs_2a REPLICA IDENTITY NOTHING",
        "ALTER TABLE logs_1 REPLICA IDENTITY FULL",
    )
    found = await catalog.tables(conn, ["logs", "logs_1", "logs_2a"])
    assert (found["logs"].kind, found["logs"].is_publishable) == ("p", True)
    assert found["logs"].unidentified == ("public.logs_2a",)
    assert found["logs"].without_old_values == ("public.logs_2a",)
    assert found["logs"].partition_root is None
    assert (found["logs_1"].is_partition, found["logs_1"].partition_root) == (True, "public.logs")
    assert found["logs_1"].is_identified


async def test_what_a_role_may_do_with_a_table(dsn: str, conn: Connection) -> None:
    role = await make_role(conn, dsn)
    await make(
        conn,
        "CREATE TABLE mine (id int); ALTER TABLE mine OWNER TO watcher",
        "CREATE TABLE theirs (id int)",
        "CREATE TABLE hidden (id int); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; GRANT SELECT ON hidden TO watcher",
        "CREATE SCHEMA closed; CREATE TABLE closed.t (id int); GRANT SELECT ON closed.t TO watcher",
    )
    async with await connect(role, purpose="test") as watcher:
        found = await catalog.tables(watcher, ["mine", "theirs", "hidden", "closed.t"])
        facts = {name: (t.owned, t.can_select, t.row_security) for name, t in found.items()}
    assert facts == {
        "mine": (True, True, False),
        "theirs": (False, False, False),
        "hidden": (False, True, True),
        "closed.t": (False, False, False),
    }
    assert found["theirs"].owner == "postgres"


async def test_a_partition_that_somebody_rewrites_is_not_waited_for(dsn: str, conn: Connection) -> None:
    await make(
        conn,
        "CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id)",
        "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id)",
        "CREATE TABLE t11 PARTITION OF t1 FOR VALUES FROM (0) TO (5)",
        "ALTER TABLE t11 REPLICA IDENTITY NOTHING",
    )
    async with await connect(dsn, purpose="test") as other, other.transaction():
        await other.execute("LOCK TABLE public.t11 IN ACCESS EXCLUSIVE MODE")
        facts = (await catalog.tables(conn, ["t"]))["t"]
        assert facts.unidentified == ("public.t11",)
        around = await surroundings.look(conn, slot="", pid=0, publication="", names=[("public", "t")])
        assert [table.oid for table in around.tables] == [facts.oid]


async def test_names_that_only_quotes_keep_apart(conn: Connection) -> None:
    await make(
        conn, 'CREATE SCHEMA "x.y"', "CREATE SCHEMA x", 'CREATE TABLE "x.y".z (id int)', 'CREATE TABLE x."y.z" ()'
    )
    found = await catalog.tables(conn, ['"x.y".z', 'x."y.z"'])
    assert [table.full_name for table in found.values()] == ['"x.y".z', 'x."y.z"']
    around = await surroundings.look(conn, slot="", pid=0, publication="", names=[("x.y", "z"), ("x", "y.z")])
    assert {table.full_name for table in around.tables} == {'"x.y".z', 'x."y.z"'}
