"""
Large values that an update leaves alone (TOAST), of every type that has them: never wrong and never NULL in any sink.

Out of a real server, under each replica identity. What nobody knows any more is `toast_unavailable`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import psycopg
import pytest
import redis
from psycopg import sql

from backend_watcher.delivery.coalesce import coalesce
from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.errors import PartlyWritten
from backend_watcher.events.change import UPDATE, Change
from backend_watcher.events.row import ABSENT, UNCHANGED
from backend_watcher.journal import MemoryJournal
from backend_watcher.sinks import PostgresReplica, RedisCache
from backend_watcher.sinks.webhook_body import Body
from capture.street import App, Street
from postgres.conftest import dsn, server  # noqa: F401 fixtures

# An expression for each type whose values PostgreSQL may store apart; {0} makes one value differ from the next.
LARGE = {
    "text": "repeat('{0}abcdefg', 400)",
    "varchar": "repeat('{0}abcdefg', 400)",
    "char(4000)": "repeat('{0}abcdefg', 400)",
    "bytea": "decode(repeat(md5('{0}'), 200), 'hex')",
    "json": "to_json(repeat('{0}abcdefg', 400))",
    "jsonb": "to_jsonb(repeat('{0}abcdefg', 400))",
    "numeric": "repeat('1{0}', 2500)::numeric",
    "bit varying": "(repeat('10', 9000) || repeat('1', {0}))::bit varying",
    "int[]": "array_fill({0}, ARRAY[1200])",
    "text[]": "array_fill('text {0}'::text, ARRAY[400])",
    "jsonb[]": "array_fill(to_jsonb('text {0}'::text), ARRAY[400])",
    "timestamptz[]": "array_fill('2026-01-0{0} 00:00+00'::timestamptz, ARRAY[600])",
    "path": "('[' || repeat('({0},1),', 300) || '(0,0)]')::path",
    "polygon": "('(' || repeat('({0},1),', 300) || '(0,0))')::polygon",
    "tsvector": "to_tsvector('simple', (SELECT string_agg('{0}' || md5(n::text), ' ') FROM generate_series(1, 200) n))",
    "int4multirange": "(SELECT range_agg(int4range(2 * n, 2 * n + {0} % 2 + 1)) FROM generate_series(1, 2000, 3) n)",
    "large_pair": "ROW({0}, repeat('{0}abcdefg', 400))::large_pair",
    "large_text": "repeat('{0}abcdefg', 400)::large_text",
    "mood[]": "array_fill('good'::mood, ARRAY[1200 + {0}])",
}
IDENTITIES = {"default": "DEFAULT", "full": "FULL", "index": "USING INDEX by_email"}
TABLE = "public.blobs"


def typed() -> dict[str, str]:
    return {f"c{number}": kind for number, kind in enumerate(LARGE)}


def statements(identity: str) -> list[str]:
    columns = ", ".join(f"{name} {kind}" for name, kind in typed().items())
    external = ", ".join(f"ALTER {name} SET STORAGE EXTERNAL" for name in typed())
    return [
        "CREATE TYPE mood AS ENUM ('good', 'bad')",
        "CREATE TYPE large_pair AS (a int, b text)",
        "CREATE DOMAIN large_text AS text",
        f"CREATE TABLE blobs (id int PRIMARY KEY, email text NOT NULL, v int, {columns})",
        f"ALTER TABLE blobs {external}",
        "CREATE UNIQUE INDEX by_email ON blobs (email)",
        f"ALTER TABLE blobs REPLICA IDENTITY {IDENTITIES[identity]}",
    ]


def insert(key: int, at: int) -> str:
    values = ", ".join(expression.format(at) for expression in LARGE.values())
    return f"INSERT INTO blobs VALUES ({key}, 'e{key}', 0, {values})"


def rewrite(key: int, at: int) -> str:
    values = ", ".join(f"{name} = {LARGE[kind].format(at)}" for name, kind in typed().items())
    return f"UPDATE blobs SET {values} WHERE id = {key}"


# By what is done to a row: its statements. Every row but the deleted ones is there in the end.
DONE: dict[str, list[str]] = {
    "updated": [insert(1, 1), "UPDATE blobs SET v = 1 WHERE id = 1"],
    "updated twice": [insert(2, 1), "UPDATE blobs SET v = 1 WHERE id = 2", "UPDATE blobs SET v = 2 WHERE id = 2"],
    "written anew": [insert(3, 1), "UPDATE blobs SET v = 1 WHERE id = 3", rewrite(3, 2)],
    "written anew, updated": [insert(4, 1), rewrite(4, 2), "UPDATE blobs SET v = 1 WHERE id = 4"],
    "set to NULL": [insert(5, 1), "UPDATE blobs SET c0 = NULL, c4 = NULL WHERE id = 5"],
    "moved": [insert(6, 1), "UPDATE blobs SET id = 16, email = 'e16' WHERE id = 6"],
    "moved, updated": [insert(7, 1), "UPDATE blobs SET id = 17, email = 'e17' WHERE id = 7",
                       "UPDATE blobs SET v = 1 WHERE id = 17"],
    "deleted": [insert(8, 1), "UPDATE blobs SET v = 1 WHERE id = 8", "DELETE FROM blobs WHERE id = 8"],
}  # fmt: skip


class Source:
    """What was done at the source, and what is there now as text."""

    def __init__(self, changes: list[Change], rows: dict[int, dict[str, Any]], documents: dict[int, Any]) -> None:
        self.changes = changes
        self.rows = rows
        self.documents = documents


@pytest.fixture(params=IDENTITIES)
async def source(request: pytest.FixtureRequest, server: EmbeddedPostgres, dsn: str) -> AsyncIterator[Source]:  # noqa: F811
    journal = MemoryJournal()
    await journal.open()
    asked = [statement for steps in DONE.values() for statement in steps]
    async with App.connected(dsn) as app:
        await app.run(*statements(request.param))
        street = Street(dsn, journal, TABLE)
        try:
            async with street.listening():
                await app.run(*asked)
                changes = await street.changes(len(asked))
        finally:
            await app.cut(street.slot)
            ours = "FROM pg_replication_slots WHERE slot_name = %s"
            await app.ask(f"SELECT pg_terminate_backend(active_pid, 10000) {ours} AND active", street.slot)
            await app.ask(f"SELECT pg_drop_replication_slot(slot_name) {ours}", street.slot)
    yield Source(changes, texts(dsn, TABLE), documents(dsn))
    await journal.close()


def texts(dsn: str, table: str) -> dict[int, dict[str, Any]]:  # noqa: F811
    names = ["email", "v", *typed()]
    columns = ", ".join(f"{name}::text" for name in names)
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(f"SELECT id, {columns} FROM {table}".encode()).fetchall()
    return {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows}


def documents(dsn: str) -> dict[int, Any]:  # noqa: F811
    with psycopg.connect(dsn) as connection:
        return dict(connection.execute("SELECT id, jsonb_build_object('c0', c0, 'c5', c5) FROM blobs").fetchall())


def lacking(change: Change) -> list[str]:
    return [] if change.new is None else [name for name in change.new if change.new.raw(name) is UNCHANGED]


def test_every_type_is_left_out_of_an_update(source: Source) -> None:
    """Else the rest of this file shows nothing."""
    updates = [change for change in source.changes if change.code == UPDATE and change.row.raw("v") == b"1"]
    assert set(lacking(updates[0])) == set(typed())


@pytest.mark.parametrize("together", [True, False], ids=["coalesced", "one by one"])
def test_a_function_never_takes_one_for_null(source: Source, together: bool) -> None:
    rows: dict[Any, dict[str, Any]] = {}
    for change in coalesce(source.changes)[0] if together else source.changes:
        before = rows.pop((change.key_before or change.key)[0], {})
        if change.new is not None:
            new = change.new
            rows[change.key[0]] = {name: before[name] if new[name] is UNCHANGED else new[name] for name in new}
    found = {row["id"]: row for row in rows.values()}
    assert found.keys() == source.rows.keys()
    for key, row in source.rows.items():
        assert all(found[key][name] is not UNCHANGED and found[key][name] is not ABSENT for name in row)
        assert {name for name in row if found[key][name] is None} == {name for name in row if row[name] is None}
        # A text and a document are held against what the source has; the other types have a file of their own.
        assert found[key]["c0"] == row["c0"]
        assert found[key]["c5"] == source.documents[key]["c5"]


def test_a_webhook_says_which_it_has_not(source: Source) -> None:
    body = Body("{table}.{operation}", None, ())
    for change in source.changes:
        data = msgspec.json.decode(body.write(change))["data"]
        if data["new"] is None:
            continue
        assert data.get("unchanged", []) == lacking(change)
        assert not set(lacking(change)) & set(data["new"])
        if data["old"] is not None and len(data["old"]) > 3:
            # REPLICA IDENTITY FULL: what is left out of one is in the other.
            assert set(lacking(change)) <= set(data["old"])
            assert all(data["old"][name] is not None for name in lacking(change))


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])
async def test_a_replica_ends_equal(source: Source, server: EmbeddedPostgres, together: bool) -> None:  # noqa: F811
    name = f"copy_{secrets.token_hex(5)}"
    target = f"{server.dsn.rpartition('/')[0]}/{name}"
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            with psycopg.connect(target, autocommit=True) as there:
                for statement in statements("default"):
                    there.execute(statement.encode())
            sink = PostgresReplica(target)
            sink.belongs_to("copy")
            for batch in [source.changes] if together else [[change] for change in source.changes]:
                await sink.write(batch)
            await sink.close()
            assert texts(target, TABLE) == source.rows
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])
@pytest.mark.parametrize("form", ["json", "hash"])
async def test_a_cache_ends_equal_or_says_what_it_lacks(
    source: Source, url: str, valkey: redis.Redis, form: Any, together: bool
) -> None:
    by_email = source.changes[0].table.primary_key == ("email",)
    sink = RedisCache(key="b:{email}" if by_email else "b:{id}", url=url, format=form)
    await sink.open()
    left = [list(source.changes)] if together else [[change] for change in source.changes]
    refused: list[Change] = []
    causes: list[str] = []
    while left:
        batch = left.pop(0)
        try:
            await sink.write(batch)
        except PartlyWritten as partly:
            causes.append(str(partly.cause))
            refused.append(batch[partly.settled])
            if batch[partly.settled + 1 :]:
                left.insert(0, batch[partly.settled + 1 :])
    await sink.close()
    assert all(cause.startswith("toast_unavailable: public.blobs.c") for cause in causes)
    whole = source.changes[0].table.replica_identity == "f"
    assert all(lacking(change) for change in refused)
    assert not (whole and refused)
    # Of a key of which nothing was refused, and every key under FULL, all is as at the source.
    doubtful = {change.row["id"] for change in refused}
    read = as_json if form == "json" else as_fields
    for key, document in source.documents.items():
        kept = read(valkey, f"b:e{key}" if by_email else f"b:{key}")
        if key not in doubtful:
            assert kept is not None
            row = source.rows[key]
            assert {name for name in row if row[name] is None} == {name for name in row if kept.get(name) is None}
            assert kept.get("c0") == document["c0"]
        elif kept is not None:
            # What stands there is older, and was whole.
            assert kept["c1"] is not None
    if form == "hash":
        # Only where the key changed is a field lost that nobody has any more.
        assert doubtful <= {16, 17}


def as_json(valkey: redis.Redis, key: str) -> dict[str, Any] | None:
    value = valkey.get(key)
    return None if value is None else json.loads(value)


def as_fields(valkey: redis.Redis, key: str) -> dict[str, Any] | None:
    return {name.decode(): text.decode() for name, text in valkey.hgetall(key).items()} or None
