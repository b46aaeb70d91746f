"""
Publications: which tables PostgreSQL sends.

Never FOR ALL TABLES, and never a table whose UPDATEs would then fail. A publication comes before its slot:
what the slot saw earlier would be skipped in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg import sql

from backend_watcher.errors import PreflightFailed, PublicationLost, SourceRefused
from backend_watcher.postgres.catalog import TableFacts
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.identity import ALL_OPERATIONS, fault_of, mend_of, needs_identity
from backend_watcher.postgres.names import check_publication_name, for_statement, quote
from backend_watcher.postgres.queries import fetch_all, fetch_one, run

_OPERATION_ORDER = ("insert", "update", "delete", "truncate")


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """
    A table in a publication.

    `named`: the publication lists it. `published`: its changes are sent under its own name; with `via_root` a
    partition is sent under its root's name, without it a root is sent under its partitions' names.
    """

    oid: int
    schema: str
    name: str
    quoted: str
    named: bool
    published: bool
    has_column_list: bool
    row_filter: str | None


@dataclass(frozen=True, slots=True)
class PublicationFacts:
    """A publication as it is now."""

    oid: int
    name: str
    all_tables: bool
    via_root: bool
    operations: frozenset[str]
    owner: str
    owned: bool
    tables: tuple[PublishedTable, ...]

    @property
    def oids(self) -> frozenset[int]:
        """The tables it names or publishes."""
        return frozenset(table.oid for table in self.tables)

    def lacking(self, wished: Iterable[TableFacts]) -> tuple[TableFacts, ...]:
        """Return the wished tables that are not in it."""
        there = self.oids
        return tuple(table for table in wished if table.oid not in there)


@dataclass(frozen=True, slots=True)
class Alignment:
    """What `align` did: tables added, and tables found in the publication that nobody wished for (kept)."""

    added: tuple[TableFacts, ...]
    extra: tuple[PublishedTable, ...]


async def look(conn: Connection, name: str) -> PublicationFacts | None:
    """Return a publication, None if there is none of that name."""
    check_publication_name(name)
    row = await fetch_one(conn, "publication", name=name)
    if row is None:
        return None
    operations = frozenset(operation for operation in _OPERATION_ORDER if row.pop(operation))
    tables = await fetch_all(conn, "publication_tables", oid=row["oid"], name=name)
    for table in tables:
        table["quoted"] = for_statement(table["schema"], table["name"], table["quoted"])
    return PublicationFacts(**row, operations=operations, tables=tuple(PublishedTable(**table) for table in tables))


async def create(
    conn: Connection,
    name: str,
    tables: Sequence[TableFacts],
    *,
    operations: frozenset[str] = ALL_OPERATIONS,
) -> None:
    """Create a publication of exactly these tables. Raises PreflightFailed if that would harm one of them."""
    check_publication_name(name)
    _refuse_harm(tables, operations)
    what = sql.SQL(" FOR TABLE {}").format(_list(tables)) if tables else sql.SQL("")
    # A partitioned table is sent under its own name, which is the one that the user wrote.
    statement = sql.SQL("CREATE PUBLICATION {name}{what} WITH (publish = {publish}, publish_via_partition_root)")
    await run(conn, statement.format(name=sql.Identifier(name), what=what, publish=sql.Literal(publish_of(operations))))


async def align(conn: Connection, name: str, wished: Sequence[TableFacts]) -> Alignment:
    """
    Add the wished tables that a publication lacks. Never removes one: somebody may have added it on purpose.

    Rows that an added table already has are not sent; the caller loads them.
    """
    facts = await look(conn, name)
    if facts is None:
        raise PublicationLost(f"publication {name!r} does not exist")
    lacking = facts.lacking(wished)
    _refuse_harm(lacking, facts.operations)
    if lacking:
        statement = sql.SQL("ALTER PUBLICATION {} ADD TABLE {}")
        await run(conn, statement.format(sql.Identifier(name), _list(lacking)))
    asked = {table.oid for table in wished}
    return Alignment(lacking, tuple(table for table in facts.tables if table.named and table.oid not in asked))


async def drop(conn: Connection, name: str) -> bool:
    """Drop a publication; returns False if there was none."""
    if await look(conn, name) is None:
        return False
    await run(conn, sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(name)))
    return True


def create_statement(name: str, tables: Iterable[TableFacts], operations: frozenset[str] = ALL_OPERATIONS) -> str:
    """Write for a person what `create` would run."""
    what = ", ".join(table.quoted for table in tables)
    publish = f"publish = '{publish_of(operations)}', publish_via_partition_root = true"
    return f"CREATE PUBLICATION {quote(name)}{f' FOR TABLE {what}' if what else ''} WITH ({publish});"


def publish_of(operations: Iterable[str]) -> str:
    """Write operations as the parameter `publish` takes them."""
    wished = set(operations)
    if unknown := wished - ALL_OPERATIONS:
        raise SourceRefused(f"no operation is called {', '.join(sorted(unknown))}")
    return ", ".join(operation for operation in _OPERATION_ORDER if operation in wished)


def _refuse_harm(tables: Iterable[TableFacts], operations: frozenset[str]) -> None:
    if not needs_identity(operations):
        return
    harmed = [table for table in tables if not table.is_identified]
    if harmed:
        faults = [f"{fault_of(table)}. Mend it with: {mend_of(table)}" for table in harmed]
        raise PreflightFailed(faults, remedy=" ".join(mend_of(table) for table in harmed))


def _list(tables: Iterable[TableFacts]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(table.schema, table.name) for table in tables)
