"""The outbox made and taken away on a real server: by whom, again and again, and what it does to the application."""

from __future__ import annotations

import psycopg
import pytest

from backend_watcher.errors import PreflightFailed, SourceError
from backend_watcher.postgres import catalog, outbox_install
from backend_watcher.postgres.catalog import TableFacts
from backend_watcher.postgres.connect import Connection, connect
from backend_watcher.postgres.outbox_install import (
    ROW_TRIGGER,
    TRUNCATE_TRIGGER,
    install,
    look,
    missing_triggers,
    remove,
    script,
    trigger_statements,
)

from .conftest import make, make_role

NOBODY: frozenset[int] = frozenset()


async def table(conn: Connection, name: str) -> TableFacts:
    return (await catalog.tables(conn, [name]))[name]


@pytest.fixture
async def made(conn: Connection) -> Connection:
    """A database with a table that writes into the outbox."""
    await make(conn, "CREATE TABLE t (id int PRIMARY KEY, a text)")
    assert await install(conn, [await table(conn, "t")], NOBODY, notify=True) == 1
    return conn


async def rows(conn: Connection) -> list[tuple[str, str | None, str | None]]:
    cursor = await conn.execute("SELECT operation::text, old_row, new_row FROM watcher.outbox ORDER BY number")
    return await cursor.fetchall()  # type: ignore[return-value]


async def test_it_can_be_made_again_and_changes_nothing_then(made: Connection) -> None:
    before = await look(made)
    assert before.there
    assert before.notifies
    assert before.rights == ()
    assert missing_triggers(await table(made, "t"), before) == []
    assert await install(made, [await table(made, "t")], NOBODY, notify=True) == 0
    await made.execute(script(notify=True).encode())
    await made.execute("\n".join(trigger_statements(await table(made, "t"))).encode())
    # Not made anew either: another OID would look like a gap.
    assert await look(made) == before


async def test_each_change_leaves_one_row_in_the_transaction_itself(made: Connection) -> None:
    await make(
        made,
        "INSERT INTO t VALUES (1, NULL), (2, '')",
        "UPDATE t SET a = 'x,\"y\"' WHERE id = 1",
        *("BEGIN", "INSERT INTO t VALUES (3, 'gone')", "ROLLBACK"),
        "DELETE FROM t WHERE id = 2",
        "TRUNCATE t",
    )
    assert await rows(made) == [
        ("I", None, "(1,)"),
        ("I", None, '(2,"")'),
        ("U", "(1,)", '(1,"x,""y""")'),
        ("D", '(2,"")', None),
        ("T", None, None),
    ]


async def test_values_do_not_depend_on_what_the_application_has_set(made: Connection) -> None:
    await make(
        made,
        "CREATE TABLE v (id int PRIMARY KEY, d date, z timestamptz, b bytea, f float8, m money, i interval)",
    )
    await install(made, [await table(made, "v")], NOBODY, notify=True)
    insert = (
        "INSERT INTO v VALUES ({}, '2024-03-01', '2024-03-01 12:00+00', '\\x00ff', 0.1::float8 * 3, 12, '1 day 2 h')"
    )
    await make(made, insert.format(1))
    await make(
        made,
        "SET DateStyle = 'German'",
        "SET TimeZone = 'Asia/Jakarta'",
        "SET bytea_output = 'escape'",
        "SET extra_float_digits = -5",
        "SET IntervalStyle = 'iso_8601'",
        insert.format(2),
    )
    first, second = (row[2] for row in await rows(made))
    assert first is not None
    assert second == first.replace("(1,", "(2,", 1)
    assert "0.30000000000000004" in first
    assert await (await made.execute("SHOW DateStyle")).fetchone() == ("German, DMY",)


async def test_what_is_replicated_in_or_restored_is_heard_too(made: Connection) -> None:
    await make(made, "SET session_replication_role = replica", "INSERT INTO t VALUES (1, 'a')")
    assert len(await rows(made)) == 1


async def test_a_partitioned_table_is_heard_by_its_own_name(conn: Connection) -> None:
    await make(
        conn,
        "CREATE TABLE p (id int, a text, PRIMARY KEY (id)) PARTITION BY RANGE (id)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE p2 (a text, id int NOT NULL)",
        "ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20)",
    )
    await install(conn, [await table(conn, "p")], NOBODY, notify=True)
    await make(
        conn, "INSERT INTO p VALUES (1, 'a')", "INSERT INTO p2 VALUES ('b', 11)", "UPDATE p SET id = 12 WHERE id = 1"
    )
    assert [(row[0], row[1], row[2]) for row in await rows(conn)] == [
        ("I", None, "(1,a)"),
        ("I", None, "(b,11)"),
        ("D", "(1,a)", None),
        ("I", None, "(a,12)"),
    ]
    shapes = await (await conn.execute("SELECT DISTINCT name FROM watcher.outbox_shape")).fetchall()
    assert shapes == [("p",)]


async def test_a_partition_that_is_watched_by_itself_has_its_own_name(conn: Connection) -> None:
    await make(
        conn,
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)",
    )
    await install(conn, [await table(conn, "p1")], NOBODY, notify=True)
    await make(conn, "INSERT INTO p VALUES (1)")
    assert await (await conn.execute("SELECT name FROM watcher.outbox_shape")).fetchall() == [("p1",)]


async def test_our_trigger_fires_before_those_that_change_more(made: Connection) -> None:
    await make(
        made,
        "CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN UPDATE public.t SET a = 'more' WHERE id = NEW.id; RETURN NULL; END $$",
        'CREATE TRIGGER "AAA" AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION more()',
        "INSERT INTO t VALUES (1, 'first')",
    )
    assert [row[0] for row in await rows(made)] == ["I", "U"]


async def test_notifications_can_be_left_out_and_put_back(made: Connection, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as listening:
        listening.execute("LISTEN watcher_outbox")
        await make(made, "BEGIN; INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); COMMIT")
        assert [one.payload for one in listening.notifies(timeout=1, stop_after=5)] == [""]
        assert await install(made, [], NOBODY, notify=False) == 0
        assert (await look(made)).notifies is False
        await make(made, "INSERT INTO t VALUES (3)", "NOTIFY other", "NOTIFY watcher_outbox, 'end'")
        assert [one.payload for one in listening.notifies(timeout=1, stop_after=1)] == ["end"]
    assert "pg_notify" not in script(notify=False)


async def test_nobody_else_may_read_write_or_run_it(made: Connection, dsn: str) -> None:
    other = await make_role(made, dsn, "")
    await make(made, "GRANT SELECT, INSERT ON t TO watcher")
    async with await connect(other, purpose="test") as stranger:
        for statement in (
            "SELECT * FROM watcher.outbox",
            "INSERT INTO watcher.outbox_shape VALUES (1, 1, 'a', 'b', '[]')",
            "SELECT nextval('watcher.outbox_number')",
            "SELECT watcher.outbox_empty(0)",
            "SELECT watcher.outbox_say('a', 'b')",
            "DO $$ BEGIN LOCK TABLE watcher.outbox_reader; END $$",
            "UPDATE watcher.outbox_reader SET batch = 5",
            "DROP TABLE watcher.outbox",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await stranger.execute(statement.encode())
        # Its own writes leave their rows all the same.
        await stranger.execute("INSERT INTO public.t VALUES (1, 'a')")
        await make(made, "GRANT USAGE ON SCHEMA watcher TO watcher")
        await stranger.execute("SELECT watcher.outbox_say('a', '')")
        for statement in ("SELECT * FROM watcher.outbox", "SELECT watcher.outbox_empty(0)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await stranger.execute(statement.encode())
    assert await rows(made) == [("I", None, "(1,a)"), ("M", "a", "")]


async def test_a_cast_of_the_table_owners_does_not_run_with_our_rights(made: Connection, dsn: str) -> None:
    await make(
        made,
        "CREATE FUNCTION evil(t) RETURNS text LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'as %', current_user; END $$",
        "CREATE CAST (t AS text) WITH FUNCTION evil(t) AS IMPLICIT",
        "INSERT INTO t VALUES (1, 'a')",
    )
    assert await rows(made) == [("I", None, "(1,a)")]


async def test_a_role_that_may_not_is_told_and_one_with_the_grants_may_read(made: Connection, dsn: str) -> None:
    reader = await make_role(made, dsn, "")
    async with await connect(reader, purpose="test") as conn:
        with pytest.raises(PreflightFailed) as refused:
            await install(conn, [await table(conn, "t")], NOBODY, notify=False)
        assert "watcher outbox print" in refused.value.remedy
        assert (await look(conn)).rights == ("USAGE ON SCHEMA watcher",)
        await made.execute(script(notify=True, role="watcher").encode())
        assert (await look(conn)).rights == ()


async def test_it_is_taken_away_whole(made: Connection) -> None:
    assert await remove(made) == 2
    assert not (await look(made)).there
    await make(made, "INSERT INTO t VALUES (1, 'a')")
    left = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'watcher'"
    assert await (await made.execute(left.encode())).fetchone() == (0,)
    assert await remove(made) == 0


async def test_a_lock_that_is_not_to_be_had_is_given_up_and_keeps_nobody(
    made: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_install, "LOCK_TRIES_MAX", 2)
    monkeypatch.setattr(outbox_install, "LOCK_PAUSE_SECONDS", 0.01)
    await make(made, "CREATE TABLE busy (id int PRIMARY KEY)")
    with psycopg.connect(dsn) as writer:
        writer.execute("INSERT INTO busy VALUES (1)")
        with pytest.raises(SourceError, match="55P03"):
            await install(made, [await table(made, "busy")], NOBODY, notify=True)
        assert ROW_TRIGGER != TRUNCATE_TRIGGER
    assert await install(made, [await table(made, "busy")], NOBODY, notify=True) == 1
