"""What the tables of a replica look like, what they lack, and the statements that mend it."""

from __future__ import annotations

from dataclasses import dataclass

from backend_watcher.errors import SinkGone
from backend_watcher.events.table import Column, Table, qualify
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.names import quote
from backend_watcher.postgres.replica_session import ask

UNKNOWN_TYPE = "<type>"
"""Written where a type has another number in each database, so that only its name at the source would tell it."""


@dataclass(frozen=True, slots=True)
class TargetColumn:
    """
    A column there: its type without modifier, whether it computes itself, whether it takes only its own numbers.

    `in_array` is the array of the type where a text is to be read as an element of one, and not by a cast. `written` is
    the type with its modifier.
    """

    name: str
    type: str
    generated: bool
    always: bool
    in_array: str | None = None
    written: str = ""

    def read(self, text: str) -> str:
        """Return the SQL that reads an expression of type text as a value of the column, of any length."""
        if self.in_array is None:
            return f"{text}::{self.type}"
        element = f"""replace(replace({text}, '\\', '\\\\'), '"', '\\"')"""
        return f"""(('{{"' || {element} || '"}}')::{self.in_array})[1]"""


@dataclass(frozen=True, slots=True)
class Target:
    """A table there. `arbiters` are the sets of columns that ON CONFLICT can name, `unique` those it cannot."""

    schema: str
    name: str
    columns: dict[str, TargetColumn]
    arbiters: frozenset[frozenset[str]]
    unique: frozenset[frozenset[str]]

    @property
    def quoted(self) -> str:
        """The name as SQL."""
        return f"{quote(self.schema)}.{quote(self.name)}"

    @property
    def full_name(self) -> str:
        """The name for people."""
        return qualify(self.schema, self.name)


def key_of(table: Table) -> tuple[str, ...]:
    """
    Return the columns that a row is found by; none for a table whose rows may be equal.

    With REPLICA IDENTITY FULL and no primary key every column is flagged, and that is no key.
    """
    if not table.primary_key and table.replica_identity != "i":
        return ()
    return tuple(table.columns[index].name for index in table.identity_indexes)


async def read_target(conn: Connection, schema: str, name: str) -> Target | None:
    """Return a table as it is now, None where there is none."""
    columns = await ask(conn, "replica_columns", schema=schema, name=name)
    if not columns:
        return None
    unique = await ask(conn, "replica_unique", schema=schema, name=name)
    named = {row["name"]: TargetColumn(**row) for row in columns}
    sets = [(frozenset(row["columns"] or ()), row["immediate"]) for row in unique]
    at_once = frozenset(columns for columns, immediate in sets if immediate)
    later = frozenset(columns for columns, immediate in sets if not immediate)
    return Target(schema, name, named, at_once, later)


async def target_of(conn: Connection, table: Table, schema: str, *, create: bool) -> Target:
    """
    Return the table that the rows of `table` go to, fit to take them.

    With `create` a missing table and missing columns are made. Raises SinkGone, naming the statement that mends it.
    """
    target = await read_target(conn, schema, table.name)
    if target is None:
        await _mend(conn, await _create_table(conn, table, schema), f"there is no table {schema}.{table.name}", create)
        target = await _again(conn, table, schema)
    missing = [column for column in table.columns if column.name not in target.columns]
    if missing:
        types = await type_names(conn, missing)
        adds = ", ".join(
            f"ADD COLUMN {quote(column.name)} {written}" for column, written in zip(missing, types, strict=True)
        )
        names = ", ".join(repr(column.name) for column in missing)
        await _mend(conn, f"ALTER TABLE {target.quoted} {adds}", f"{target.full_name} has no column {names}", create)
        target = await _again(conn, table, schema)
    _check(table, target)
    return target


async def type_names(conn: Connection, columns: list[Column]) -> list[str]:
    """Return the types of source columns as this server writes them, `<type>` where it cannot know them."""
    rows = await ask(
        conn,
        "replica_type_names",
        oids=[column.type_oid for column in columns],
        modifiers=[column.modifier for column in columns],
    )
    found = {row["number"]: row["type"] for row in rows if row["type"] not in ("???", "-")}
    return [found.get(number, UNKNOWN_TYPE) for number in range(1, len(columns) + 1)]


async def _create_table(conn: Connection, table: Table, schema: str) -> str:
    columns = list(table.columns)
    types = await type_names(conn, columns)
    parts = [f"{quote(column.name)} {written}" for column, written in zip(columns, types, strict=True)]
    key = key_of(table)
    if key:
        parts.append(f"PRIMARY KEY ({', '.join(map(quote, key))})")
    made = f"CREATE TABLE {quote(schema)}.{quote(table.name)} ({', '.join(parts)})"
    (found,) = await ask(conn, "replica_schema_exists", schema=schema)
    return made if found["exists"] else f"CREATE SCHEMA {quote(schema)}; {made}"


async def _mend(conn: Connection, statement: str, fault: str, create: bool) -> None:
    if UNKNOWN_TYPE in statement:
        raise SinkGone(
            f"{fault}, and a type of the source is not one that every PostgreSQL has",
            remedy=f"Write its type in: {statement}; then `watcher resume`.",
        )
    if not create:
        raise SinkGone(fault, remedy=f"{statement}; then `watcher resume`. Or set create = true.")
    await conn.execute(statement.encode())


async def _again(conn: Connection, table: Table, schema: str) -> Target:
    target = await read_target(conn, schema, table.name)
    if target is None:
        raise SinkGone(f"{schema}.{table.name} is not a table", remedy="Rename what has its name.")
    return target


def _check(table: Table, target: Target) -> None:
    key = key_of(table)
    if key and frozenset(key) not in target.arbiters | target.unique:
        columns = ", ".join(map(quote, key))
        raise SinkGone(
            f"{target.full_name} has no unique index on {columns}, by which the rows of the source are told apart",
            remedy=f"ALTER TABLE {target.quoted} ADD PRIMARY KEY ({columns}); then `watcher resume`.",
        )
    for column in table.columns:
        there = target.columns[column.name]
        if there.generated and column.name in key:
            raise SinkGone(
                f"{target.full_name}.{column.name} is generated, and part of the key", remedy="Let it be plain."
            )
        if there.always and column.name not in key:
            change = f"ALTER TABLE {target.quoted} ALTER COLUMN {quote(column.name)} SET GENERATED BY DEFAULT"
            raise SinkGone(
                f"{target.full_name}.{column.name} takes only numbers of its own (GENERATED ALWAYS AS IDENTITY)",
                remedy=f"{change}; then `watcher resume`.",
            )
