"""What a target lacks, said with the statement that mends it."""

from __future__ import annotations

import pytest

from backend_watcher.errors import SinkGone
from backend_watcher.events.table import Table
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.replica_tables import key_of, read_target, target_of
from backend_watcher.testing.builders import table

from .conftest import make

STRANGE = 'a "b".\N{PILE OF POO}'
WIDE = {"id": "int8", STRANGE: "text", "at": "timestamptz"}


def statement(error: pytest.ExceptionInfo[SinkGone]) -> str:
    return error.value.remedy.partition("; then")[0]


@pytest.mark.parametrize("schema", ["public", "else.where"])
async def test_the_statement_that_is_named_makes_the_table(conn: Connection, schema: str) -> None:
    shape = table(f"public.{STRANGE}".replace(".", "_", 0), WIDE)
    with pytest.raises(SinkGone, match="there is no table") as caught:
        await target_of(conn, shape, schema, create=False)
    await conn.execute(statement(caught).encode())
    target = await target_of(conn, shape, schema, create=False)
    assert {name: column.type for name, column in target.columns.items()} == {
        "id": "bigint",
        STRANGE: "text",
        "at": "timestamp with time zone",
    }
    assert target.arbiters == {frozenset({"id"})}


async def test_on_request_tables_and_columns_are_made(conn: Connection) -> None:
    await target_of(conn, table(columns={"id": "int8"}), "public", create=True)
    with pytest.raises(SinkGone, match="has no column 'name'") as caught:
        await target_of(conn, table(), "public", create=False)
    assert statement(caught) == 'ALTER TABLE "public"."products" ADD COLUMN "name" text, ADD COLUMN "stock" integer'
    assert set((await target_of(conn, table(), "public", create=True)).columns) == {"id", "name", "stock"}


async def test_a_type_that_only_the_source_has_is_asked_for(conn: Connection) -> None:
    shape = table()
    shape.columns[1].type_oid = 99_999
    with pytest.raises(SinkGone, match="not one that every PostgreSQL has") as caught:
        await target_of(conn, shape, "public", create=True)
    assert '"name" <type>' in caught.value.remedy


async def test_a_table_without_the_key_is_refused(conn: Connection) -> None:
    await make(conn, "CREATE TABLE products (id bigint, name text, stock int)")
    with pytest.raises(SinkGone, match="no unique index") as caught:
        await target_of(conn, table(), "public", create=True)
    await conn.execute(statement(caught).encode())
    await target_of(conn, table(), "public", create=False)


async def test_a_column_that_takes_only_its_own_numbers_is_refused(conn: Connection) -> None:
    await make(conn, "CREATE TABLE products (id bigint PRIMARY KEY, name text, stock int GENERATED ALWAYS AS IDENTITY)")
    with pytest.raises(SinkGone, match="GENERATED ALWAYS AS IDENTITY") as caught:
        await target_of(conn, table(), "public", create=False)
    await conn.execute(statement(caught).encode())
    await target_of(conn, table(), "public", create=False)


async def test_an_index_that_is_checked_later_is_no_arbiter(conn: Connection) -> None:
    await make(conn, "CREATE TABLE products (id bigint PRIMARY KEY DEFERRABLE, name text, stock int)")
    target = await target_of(conn, table(), "public", create=False)
    assert (target.arbiters, target.unique) == (frozenset(), {frozenset({"id"})})
    assert await read_target(conn, "public", "nothing") is None


@pytest.mark.parametrize(
    ("shape", "key"),
    [
        (table(), ("id",)),
        (table(replica_identity="f"), ("id",)),
        (table(key=(), replica_identity="f"), ()),
        (table(key=()), ()),
    ],
)
def test_rows_are_found_by_the_key_or_not_at_all(shape: Table, key: tuple[str, ...]) -> None:
    assert key_of(shape) == key
