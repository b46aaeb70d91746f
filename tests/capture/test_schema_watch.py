"""Everything that may be done to a watched table, done to a real server: told of within one look, and never applied."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest
from structlog.testing import capture_logs

from backend_watcher.capture import schema_watch
from backend_watcher.capture.prepare import LogicalSettings
from backend_watcher.capture.schema_notes import load_changes
from backend_watcher.capture.schema_watch import SHAPES, SchemaWatch
from backend_watcher.capture.watch import WATCH_SECONDS
from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.errors import PublicationLost
from backend_watcher.events.schema_change import SchemaChange
from backend_watcher.journal import MemoryJournal
from backend_watcher.postgres.surroundings import Surroundings
from backend_watcher.testing.fakes import RecordingObserver

from .street import App, Street, eventually

GLANCE = 0.05
TABLES = (
    "CREATE TYPE mood AS ENUM ('good', 'bad')",
    "CREATE TYPE place AS (city text, zip text)",
    (
        "CREATE TABLE people (id int PRIMARY KEY, n numeric(8,2), v varchar(10), m mood, p place,"
        " u int NOT NULL UNIQUE, g int GENERATED ALWAYS AS (u * 2) STORED, c int)"
    ),
    "INSERT INTO people VALUES (1, 1.5, 'x', 'good', '(a,b)', 7)",
    "CREATE TABLE log (id int, at int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
    "CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (0) TO (10)",
    "CREATE SCHEMA attic",
)


@dataclass(frozen=True)
class Case:
    ddl: str
    told: tuple[tuple[str, str, bool], ...]
    later: str = ""


PEOPLE, LOG = "public.people", "public.log"
INSERT = "INSERT INTO people (id, u) VALUES (9, 9)"
CASES = {
    "a column": Case("ALTER TABLE people ADD w text", (("column_added", PEOPLE, False),), INSERT),
    "a column with a default": Case(
        "ALTER TABLE people ADD w text DEFAULT 'w'", (("column_added", PEOPLE, True),), INSERT
    ),
    "a column with a volatile default": Case(
        "ALTER TABLE people ADD w float DEFAULT random()", (("column_added", PEOPLE, True),), INSERT
    ),
    "a column dropped": Case("ALTER TABLE people DROP v", (("column_dropped", PEOPLE, False),), INSERT),
    "dropped and added": Case(
        "ALTER TABLE people DROP v; ALTER TABLE people ADD v varchar(10)",
        (("column_dropped", PEOPLE, False), ("column_added", PEOPLE, False)),
        INSERT,
    ),
    "a column renamed": Case("ALTER TABLE people RENAME v TO w", (("column_renamed", PEOPLE, True),), INSERT),
    "retyped and rewritten": Case(
        "ALTER TABLE people ALTER c TYPE text USING 'n' || c", (("column_retyped", PEOPLE, True),), INSERT
    ),
    "retyped as wide": Case(
        "ALTER TABLE people ALTER v TYPE varchar(20)", (("column_retyped", PEOPLE, False),), INSERT
    ),
    "rewritten in its type": Case(
        "ALTER TABLE people ALTER n TYPE numeric(8,2) USING n * 2", (("rewritten", PEOPLE, True),), INSERT
    ),
    "another expression": Case(
        "ALTER TABLE people ALTER g SET EXPRESSION AS (u * 3)", (("rewritten", PEOPLE, True),), INSERT
    ),
    "not null": Case("ALTER TABLE people ALTER v SET NOT NULL", (("column_altered", PEOPLE, False),)),
    "no expression": Case("ALTER TABLE people ALTER g DROP EXPRESSION", (("column_altered", PEOPLE, True),), INSERT),
    "dropped": Case("DROP TABLE people", (("table_dropped", PEOPLE, False),)),
    "renamed": Case(
        "ALTER TABLE people RENAME TO folk",
        (("table_renamed", PEOPLE, True),),
        "INSERT INTO folk (id, u) VALUES (9, 9)",
    ),
    "moved": Case(
        "ALTER TABLE people SET SCHEMA attic",
        (("table_moved", PEOPLE, True),),
        "INSERT INTO attic.people (id, u) VALUES (9, 9)",
    ),
    "recreated": Case(
        "DROP TABLE people; CREATE TABLE people (id int PRIMARY KEY, u int)",
        (("table_recreated", PEOPLE, True),),
        INSERT,
    ),
    "swapped": Case(
        "CREATE TABLE other (id int PRIMARY KEY, u int); ALTER TABLE people RENAME TO gone;"
        " ALTER TABLE other RENAME TO people",
        (("table_recreated", PEOPLE, True),),
        INSERT,
    ),
    "another key": Case(
        "ALTER TABLE people DROP CONSTRAINT people_pkey, ADD PRIMARY KEY (u)", (("key_changed", PEOPLE, True),), INSERT
    ),
    "no key": Case(
        "ALTER TABLE people DROP CONSTRAINT people_pkey",
        (("key_changed", PEOPLE, True), ("identity_lost", PEOPLE, False)),
        INSERT,
    ),
    "full identity": Case("ALTER TABLE people REPLICA IDENTITY FULL", (("identity_changed", PEOPLE, False),), INSERT),
    "identity nothing": Case(
        "ALTER TABLE people REPLICA IDENTITY NOTHING", (("identity_lost", PEOPLE, False),), INSERT
    ),
    "a partition made": Case(
        "CREATE TABLE log_2 PARTITION OF log FOR VALUES FROM (10) TO (20)",
        (("partition_added", LOG, False),),
        "INSERT INTO log VALUES (1, 15)",
    ),
    "a partition attached": Case(
        "CREATE TABLE log_2 (id int, at int, PRIMARY KEY (id, at)); INSERT INTO log_2 VALUES (1, 11);"
        " ALTER TABLE log ATTACH PARTITION log_2 FOR VALUES FROM (10) TO (20)",
        (("partition_attached", LOG, True),),
        "INSERT INTO log VALUES (1, 15)",
    ),
    "a partition detached": Case("ALTER TABLE log DETACH PARTITION log_1", (("partition_removed", LOG, True),)),
    "a partition dropped": Case("DROP TABLE log_1", (("partition_removed", LOG, True),)),
    "a rewrite below": Case(
        "ALTER TABLE log ALTER id TYPE bigint", (("column_retyped", LOG, True),), "INSERT INTO log VALUES (1, 5)"
    ),
    "a label": Case("ALTER TYPE mood ADD VALUE 'fine'", (("type_changed", PEOPLE, False),), INSERT),
    "a label renamed": Case("ALTER TYPE mood RENAME VALUE 'bad' TO 'sad'", (("type_changed", PEOPLE, True),), INSERT),
    "an attribute": Case("ALTER TYPE place ADD ATTRIBUTE street text", (("type_changed", PEOPLE, True),), INSERT),
}
SILENT = {
    "truncated": "TRUNCATE people",
    "moved about": "VACUUM FULL people",
    "clustered": "CLUSTER people USING people_pkey",
    "granted": "GRANT SELECT ON people TO PUBLIC",
    "an index": "CREATE INDEX ON people (v)",
    "another table": "CREATE TABLE other (id int)",
    "a comment": "COMMENT ON TABLE people IS 'people'",
    "rolled back": "BEGIN; ALTER TABLE people ADD w int; ROLLBACK",
    "statistics": "ALTER TABLE people ALTER v SET STATISTICS 5; ANALYZE people",
}


def plain(changes: list[SchemaChange]) -> list[tuple[str, str, bool]]:
    return [(one.kind, one.table, one.needs_reread) for one in changes]


@pytest.fixture
async def people(app: App, street: Street, monkeypatch: pytest.MonkeyPatch) -> Street:
    monkeypatch.setattr(schema_watch, "FINGERPRINT_SHARE_MAX", 1.0)
    await app.run(*TABLES)
    street.change(tables=("public.people", "public.log", "public.products"))
    street.watch_seconds = GLANCE
    return street


async def known(street: Street) -> str | None:
    return await street.journal.get_note(SHAPES)


async def do(app: App, statements: str) -> None:
    for statement in statements.split(";"):
        await app.run(statement)


async def published(app: App, street: Street, case: Case) -> bool:
    """Whether a table that was made again is in the publication, if it was."""
    there = "SELECT 1 FROM pg_publication_tables WHERE pubname = %s AND schemaname || '.' || tablename = %s"
    again = any(kind == "table_recreated" for kind, _, _ in case.told)
    return not again or await app.ask(there, street.settings.publication, PEOPLE) is not None


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_what_is_done_while_we_stream_is_told(app: App, people: Street, case: Case) -> None:
    async with people.listening():
        await eventually(lambda: known(people))
        await do(app, case.ddl)
        await people.observer.wait_for(lambda: len(people.observer.schema_changes) >= len(case.told))
        assert plain(people.observer.schema_changes) == list(case.told)
        assert people.task is not None
        await eventually(lambda: published(app, people, case))
        if case.later:
            await app.run(case.later)
        await app.insert(1)
        await people.changes(2 if case.later else 1)
        assert not people.task.done()
    changes = await load_changes(people.journal)
    assert changes == people.observer.schema_changes
    assert [one.number for one in changes] == list(range(1, len(changes) + 1))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_what_was_done_while_nobody_watched_is_told_at_the_start(app: App, people: Street, case: Case) -> None:
    async with people.listening():
        await eventually(lambda: known(people))
    await do(app, case.ddl)
    async with people.listening():
        await people.observer.wait_for(lambda: len(people.observer.schema_changes) >= len(case.told))
        assert plain(people.observer.schema_changes) == list(case.told)
    async with people.listening():
        await app.insert(1)
        await people.changes(1)
        assert people.observer.schema_changes == []


@pytest.mark.parametrize("statements", SILENT.values(), ids=SILENT.keys())
async def test_what_changes_no_row_unseen_is_not_told(app: App, people: Street, statements: str) -> None:
    async with people.listening():
        before = await eventually(lambda: known(people))
        await do(app, statements)
        # What comes after it is told alone.
        await app.run("ALTER TABLE log ADD later int")
        await people.observer.wait_for(lambda: bool(people.observer.schema_changes))
    assert plain(people.observer.schema_changes) == [("column_added", LOG, False)]
    assert json.loads(before)["fingerprint"] != json.loads(await known(people) or "")["fingerprint"]


async def test_of_all_tables_those_that_came_later_are_told_of_too(app: App, people: Street) -> None:
    await app.run(f"CREATE PUBLICATION {people.settings.publication} FOR ALL TABLES")
    people.change(tables=("public.products",), schema_changes="published")
    async with people.listening():
        await eventually(lambda: known(people))
        # In one round trip: no look can come in between.
        await app.run(
            "CREATE TABLE quick (id int PRIMARY KEY); INSERT INTO quick VALUES (1);"
            " CREATE TABLE same (id int PRIMARY KEY); INSERT INTO same VALUES (1); COMMIT;"
            " ALTER TABLE quick ADD n int DEFAULT 7"
        )
        await people.observer.wait_for(lambda: bool(people.observer.schema_changes))
        await app.run("ALTER TABLE same ALTER id TYPE bigint")
        await people.observer.wait_for(lambda: len(people.observer.schema_changes) > 1)
        await app.run("DROP TABLE quick")
        await people.observer.wait_for(lambda: len(people.observer.schema_changes) > 2)
        assert people.task is not None
        assert not people.task.done()
    assert plain(people.observer.schema_changes) == [
        ("altered_unseen", "public.quick", True),
        ("column_retyped", "public.same", True),
        ("table_dropped", "public.quick", False),
    ]


async def test_rows_before_and_after_ddl_in_one_transaction_have_their_own_shapes(app: App, people: Street) -> None:
    async with people.listening():
        await eventually(lambda: known(people))
        await app.run(
            "BEGIN; INSERT INTO products VALUES (1, 'pen', 5);"
            " ALTER TABLE products RENAME COLUMN stock TO amount; INSERT INTO products VALUES (2, 'ink', 6);"
            " ALTER TABLE products ALTER amount TYPE text USING amount || ' pieces',"
            " ADD price numeric(8,2) DEFAULT 1.5;"
            " INSERT INTO products VALUES (3, 'cup', 'many', 2);"
            " ALTER TABLE products DROP name; UPDATE products SET price = 3 WHERE id = 1; COMMIT"
        )
        changes = await people.changes(4)
        await people.observer.wait_for(lambda: len(people.observer.schema_changes) >= 4)
    assert [dict(change.new) for change in changes] == [
        {"id": 1, "name": "pen", "stock": 5},
        {"id": 2, "name": "ink", "amount": 6},
        {"id": 3, "name": "cup", "amount": "many", "price": Decimal("2.00")},
        {"id": 1, "amount": "5 pieces", "price": Decimal("3.00")},
    ]
    assert [[column.name for column in change.table.columns] for change in changes][-1] == ["id", "amount", "price"]
    assert [(one.kind, one.needs_reread) for one in people.observer.schema_changes] == [
        ("column_dropped", False),
        ("column_renamed", True),
        ("column_retyped", True),
        ("column_added", True),
    ]


async def test_a_backlog_comes_under_the_identity_it_was_written_under(app: App, people: Street) -> None:
    async with people.listening():
        await eventually(lambda: known(people))
    await app.insert(1)
    before = await app.ask("SELECT 'products'::regclass::oid::bigint")
    await app.run("DROP TABLE products", "CREATE TABLE products (id bigint PRIMARY KEY, other text)")
    async with people.listening():
        await eventually(lambda: republished(app, people))
        await app.run("INSERT INTO products VALUES (2, 'new')")
        old, new = await people.changes(2)
        (told,) = people.observer.schema_changes
    assert (dict(old.new), dict(new.new)) == ({"id": 1, "name": "p1", "stock": 1}, {"id": 2, "other": "new"})
    assert old.table.full_name == new.table.full_name == "public.products"
    now = await app.ask("SELECT 'products'::regclass::oid::bigint")
    assert (old.table.relation_oid, new.table.relation_oid) == (before, now)
    assert (told.kind, told.needs_reread, str(before) in told.what) == ("table_recreated", True, True)


async def republished(app: App, street: Street) -> bool:
    there = "SELECT 1 FROM pg_publication_tables WHERE pubname = %s AND tablename = 'products'"
    return await app.ask(there, street.settings.publication) is not None


async def test_a_table_that_is_made_again_without_a_key_is_not_published_and_harms_nobody(
    app: App, people: Street
) -> None:
    async with people.listening():
        await eventually(lambda: known(people))
        await do(app, "DROP TABLE people; CREATE TABLE people (id int, u int)")
        await people.observer.wait_for(lambda: len(people.observer.schema_changes) >= 2)
        await do(app, "INSERT INTO people VALUES (1, 1); UPDATE people SET u = 2; DELETE FROM people")
        assert [one.kind for one in people.observer.schema_changes] == ["table_recreated", "not_published"]
        refused = people.observer.schema_changes[1]
        assert (refused.needs_reread, "REPLICA IDENTITY FULL" in refused.remedy) == (True, True)
        # Also after the connection was lost: the others go on.
        await app.cut(people.slot)
        await people.reach("streaming", 2)
        await app.insert(1)
        await people.changes(1)
        await app.run("ALTER TABLE people ADD PRIMARY KEY (id)")
        await eventually(lambda: published(app, people, CASES["recreated"]))
        await app.run("INSERT INTO people VALUES (2, 2)")
        await people.changes(2)
        assert people.task is not None
        assert not people.task.done()


async def test_a_publication_that_somebody_has_locked_gets_the_table_later(app: App, people: Street) -> None:
    async with people.listening(), App.connected(app.dsn) as other:
        await eventually(lambda: known(people))
        await other.run("BEGIN", f"COMMENT ON PUBLICATION {people.settings.publication} IS 'busy'")
        with capture_logs() as logs:
            await do(app, CASES["recreated"].ddl)
            await eventually(lambda: logged(logs, "table is not published yet"))
        await app.insert(1)
        await people.changes(1)
        await other.run("COMMIT")
        await eventually(lambda: published(app, people, CASES["recreated"]))
        assert people.observer.states == ["connecting", "streaming"]


async def logged(logs: list[Any], event: str) -> bool:
    return any(entry["event"] == event for entry in logs)


async def test_a_dropped_table_stops_nobody_and_is_published_when_it_is_there_again(app: App, people: Street) -> None:
    async with people.listening():
        await eventually(lambda: known(people))
        await app.run("DROP TABLE people")
        await people.observer.wait_for(lambda: bool(people.observer.schema_changes))
        await app.cut(people.slot)
        await people.reach("streaming", 2)
        await app.insert(1)
        await people.changes(1)
        await app.run("CREATE TABLE people (id int PRIMARY KEY, u int)")
        await eventually(lambda: published(app, people, CASES["recreated"]))
        await app.run("INSERT INTO people VALUES (2, 2)")
        await people.changes(2)
    assert [one.kind for one in people.observer.schema_changes] == ["table_dropped", "table_recreated"]


async def test_a_table_of_somebody_elses_is_not_published_and_the_statement_is_named(
    app: App, people: Street, server: EmbeddedPostgres
) -> None:
    async with people.listening():
        await eventually(lambda: known(people))
    role = f"weak_{secrets.token_hex(4)}"
    for table in ("people", "log", "products"):
        await app.run(f"GRANT SELECT ON {table} TO PUBLIC")
    password = secrets.token_urlsafe(12)
    await app.run(
        f"CREATE ROLE {role} LOGIN REPLICATION PASSWORD '{password}'",
        f"ALTER PUBLICATION {people.settings.publication} OWNER TO {role}",
        "DROP TABLE people",
        "CREATE TABLE people (id int PRIMARY KEY, u int)",
    )
    people.change(dsn=app.dsn.replace(app.dsn.split("@")[0].split("//")[1], f"{role}:{password}"))
    try:
        async with people.listening():
            await people.observer.wait_for(lambda: len(people.observer.schema_changes) >= 2)
            await app.insert(1)
            await people.changes(1)
        assert [one.kind for one in people.observer.schema_changes] == ["table_recreated", "not_published"]
        assert "ADD TABLE public.people; -- as its owner" in people.observer.schema_changes[1].remedy
    finally:
        await app.run(f"ALTER PUBLICATION {people.settings.publication} OWNER TO CURRENT_USER")
        await app.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.mark.parametrize("running", [True, False], ids=["while we stream", "while nobody watched"])
async def test_what_stops_it_stands_in_the_journal_too(app: App, people: Street, running: bool) -> None:
    alter = f"ALTER PUBLICATION {people.settings.publication} DROP TABLE people"
    async with people.listening():
        await eventually(lambda: known(people))
        if running:
            await app.run(alter)
            assert isinstance(await people.failure(), PublicationLost)
    if not running:
        await app.run(alter)
    for _ in range(2):
        assert isinstance(await people.refusal(), PublicationLost)
    (told,) = await load_changes(people.journal)
    assert (told.kind, told.what, told.needs_reread) == (
        "publication_altered",
        "table public.people was taken out",
        True,
    )


async def test_fingerprints_that_take_long_are_taken_less_often_and_often_enough() -> None:
    settings, journal = LogicalSettings("", "s", "p", ("public.a",)), MemoryJournal()
    watch = SchemaWatch(settings, RecordingObserver(), None, journal)  # type: ignore[arg-type]
    seen = Surroundings(None, True, None, "", None, (), "1")
    assert watch.is_due(0.0)
    watch.took(0.0, 0.1, seen)
    assert (watch.is_due(5.0), watch.is_due(5.2)) == (False, True)
    watch.took(5.2, 12.0, replace(seen, fingerprint=""))
    assert watch.is_due(5.2)
    watch.took(0.0, 9.0, seen)
    assert (watch.is_due(48.9), watch.is_due(49.0)) == (False, True)
    watch.hurry()
    assert watch.is_due(0.0)
    assert schema_watch.FINGERPRINT_SECONDS_MAX + WATCH_SECONDS < 60


async def test_event_triggers_are_made_where_that_is_wished(app: App, people: Street) -> None:
    people.change(ddl_triggers="auto")
    async with people.listening():
        assert await app.ask("SELECT count(*) FROM pg_event_trigger") == 2
        await eventually(lambda: known(people))
        await do(app, CASES["a column with a default"].ddl)
        await people.observer.wait_for(lambda: bool(people.observer.schema_changes))
    assert plain(people.observer.schema_changes) == [("column_added", PEOPLE, True)]


async def test_a_table_that_all_tables_would_harm_is_told_of(app: App, people: Street) -> None:
    await app.run(f"CREATE PUBLICATION {people.settings.publication} FOR ALL TABLES WITH (publish_via_partition_root)")
    async with people.listening():
        await eventually(lambda: known(people))
        await app.run("CREATE TABLE bare (id int)")
        await people.observer.wait_for(lambda: bool(people.observer.schema_changes))
        (told,) = people.observer.schema_changes
    assert (told.kind, told.table) == ("identity_lost", "public.bare")
    assert told.remedy.startswith("ALTER TABLE public.bare REPLICA IDENTITY FULL;")


async def test_with_event_triggers_it_is_told_at_once(app: App, street: Street) -> None:
    """The next look by itself is an hour away; the statement's own message brings it."""
    street.change(ddl_triggers="auto")
    try:
        async with street.listening():
            await eventually(lambda: known(street))
            await app.run("ALTER TABLE products ADD colour text")
            await street.observer.wait_for(lambda: bool(street.observer.schema_changes))
    finally:
        await app.run("DROP EVENT TRIGGER watcher_ddl_end", "DROP EVENT TRIGGER watcher_ddl_drop")
        await app.run("DROP SCHEMA watcher CASCADE")
