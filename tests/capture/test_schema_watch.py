"""Everything that may be done to a watched table, done to a real server: told of within one look, and never applied."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from backend_watcher.capture.schema_notes import load_changes
from backend_watcher.capture.schema_watch import SHAPES
from backend_watcher.contracts import SchemaChange

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
async def people(app: App, street: Street) -> Street:
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
