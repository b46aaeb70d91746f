"""
Rows that are already in a table, read a chunk at a time, each with the snapshot that it was read under.

A chunk is one REPEATABLE READ transaction: it holds no lock longer than it reads, and nothing back that VACUUM wants.
Chunks follow each other by the key, in the order that the server itself has for it (its collation, NaN and infinity
included), or, for a table without one, by the pages that its rows lie on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql

from backend_watcher.errors import SourceRefused, SourceUnavailable
from backend_watcher.events.snapshot import widen
from backend_watcher.events.table import qualify
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.copy_out import copy_out
from backend_watcher.postgres.queries import fetch_all, fetch_one
from backend_watcher.postgres.row_keys import key_types, without_row
from backend_watcher.postgres.translate import translating

CHUNK_BYTES_MAX = 32 << 20
"""What a chunk may bring; with more the rest of it is left for the next one."""

PAGE_BYTES_MAX = 1 << 30
"""What one page of a table without a key may bring."""

_XID_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class ReadColumn:
    """A column, as a Relation message would describe it."""

    name: str
    type_oid: int
    modifier: int
    identity: bool


@dataclass(frozen=True, slots=True)
class Leaf:
    """A relation that holds rows, and how many pages it has."""

    oid: int
    schema: str
    name: str
    pages: int


@dataclass(frozen=True, slots=True)
class ReadTable:
    """A published table as it is now. `key` is what chunks follow each other by, () where only pages serve."""

    oid: int
    schema: str
    name: str
    kind: str
    replica_identity: str
    columns: tuple[ReadColumn, ...]
    key: tuple[str, ...]
    filter: str | None
    leaves: tuple[Leaf, ...]
    estimated_rows: int

    @property
    def full_name(self) -> str:
        """What its changes are routed by."""
        return qualify(self.schema, self.name)

    @property
    def key_places(self) -> list[int]:
        """Where in a row the columns of the key are."""
        names = [column.name for column in self.columns]
        return [names.index(name) for name in self.key]

    @property
    def shape(self) -> tuple[Any, ...]:
        """What the rows of a chunk must have in common with the stream's."""
        return self.schema, self.name, self.replica_identity, self.columns, self.key, self.filter


@dataclass(frozen=True, slots=True)
class Asked:
    """
    Which rows: those that an SQL condition holds for, with some keys, or up to a key.

    A key is a text for each of its columns.
    """

    where: str | None = None
    keys: tuple[tuple[str, ...], ...] = ()
    upto: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadChunk:
    """
    CopyData lines, and the snapshot they were read under, as text.

    Where `more` follows, the next chunk begins behind `bound`, the line of a key, behind the last row if that is
    None, or at `page` of a table without a key.

    `gone` are the keys that no row has, as lines too; `exact` says that a key has one text only.
    """

    snapshot: str
    lines: list[bytes]
    more: bool
    bound: bytes | None = None
    page: tuple[str, str] | None = None
    gone: Sequence[bytes] = ()
    exact: bool = True


async def describe(conn: Connection, publication: str | None, oid: int) -> ReadTable | None:
    """
    Say how a table is to be read, None where it is gone; without a publication as an outbox describes it.

    Raises SourceRefused where it is not published.
    """
    row = await fetch_one(conn, "table_to_read", publication=publication, oid=oid)
    if row is None:
        return None
    name = qualify(row["schema"], row["name"])
    if publication is not None and not row["published"]:
        raise SourceRefused(
            f"{name} is not in publication {publication!r}", remedy="Watch the table with a subscription first."
        )
    # The triggers of an outbox write whole old rows.
    whole = publication is None
    columns = tuple(
        ReadColumn(c["name"], c["type_oid"], c["modifier"], c["identity"] or whole) for c in row["columns"] or ()
    )
    key = tuple(row["key"] or ())
    if not {column.name for column in columns}.issuperset(key):
        key = ()
    return ReadTable(
        row["oid"],
        row["schema"],
        row["name"],
        row["kind"],
        "f" if whole else row["replica_identity"],
        columns,
        key,
        row["filter"],
        tuple(Leaf(*leaf) for leaf in row["leaves"] or ()),
        row["estimated_rows"] or 0,
    )


async def read_chunk(
    conn: Connection,
    publication: str | None,
    table: ReadTable,
    asked: Asked,
    after: Sequence[str],
    size: int,
    *,
    gone: bool = False,
) -> ReadChunk | None:
    """
    Read the next `size` rows after a key, or what lies on the next `size` pages of a table without one.

    `after` is what the last chunk ended with, () at the beginning. With `gone` those of the keys asked for that no row
    has are said too, all of them, under the same snapshot. Returns None where the table was altered
    meanwhile: describe it again. Raises a SourceError.
    """
    with translating():
        try:
            await conn.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            snapshot = await running_now(conn)
            keys, exact = await _gone(conn, table, asked) if gone else ((), True)
            chunk = await (_by_key if table.key else _by_pages)(conn, snapshot, table, asked, after, size)
            if not conn.closed:
                # The lock that COPY took is still held: nobody can have altered the table since.
                now = await describe(conn, publication, table.oid)
                await conn.execute(b"COMMIT")
                if now is None or now.shape != table.shape:
                    return None
        finally:
            if not conn.closed and conn.pgconn.transaction_status:
                await conn.rollback()
    return replace(chunk, gone=keys, exact=exact)


async def _gone(conn: Connection, table: ReadTable, asked: Asked) -> tuple[Sequence[bytes], bool]:
    """Return the keys that no published row has, and whether each has one text only."""
    if not table.key:
        raise SourceRefused(f"{table.full_name} has no key", remedy="Give it a primary key.")
    types = await key_types(conn, table.oid, table.key)
    return await without_row(conn, types, _relation(table), table.key, asked.keys, table.filter), types.exact


def _relation(table: ReadTable) -> sql.Composed:
    return sql.SQL("{}{}").format(
        sql.SQL("" if table.kind == "p" else "ONLY "), sql.Identifier(table.schema, table.name)
    )


async def _by_key(
    conn: Connection, snapshot: str, table: ReadTable, asked: Asked, after: Sequence[str], size: int
) -> ReadChunk:
    """Read rows in the order of the key."""
    key = sql.SQL(", ").join(map(sql.Identifier, table.key))
    source = _relation(table)
    beyond = [sql.SQL("({}) > {}").format(key, _row(after))] if after else []
    beyond += [sql.SQL("({}) <= {}").format(key, _row(asked.upto))] if asked.upto else []
    chosen = [sql.SQL("({}) IN ({})").format(key, sql.SQL(", ").join(map(_row, asked.keys)))] if asked.keys else []
    conditions = [*beyond, *chosen, *_conditions(table, asked)]
    bound: bytes | None = None
    if table.filter or asked.where:
        # Where few rows match, many would be looked at for a chunk: what is looked at is bounded first.
        page = sql.SQL("COPY (SELECT {} FROM {}{} ORDER BY {} OFFSET {} LIMIT 1) TO STDOUT").format(
            key, source, _where([*beyond, *chosen]), key, sql.Literal(size - 1)
        )
        found, _ = await copy_out(conn, page.as_bytes(conn), CHUNK_BYTES_MAX)
        bound = found[0] if found else None
        # Under the table's own name, which a condition may use.
        source = sql.SQL("(SELECT * FROM {}{} ORDER BY {} LIMIT {}) AS {}").format(
            source, _where([*beyond, *chosen]), key, sql.Literal(size), sql.Identifier(table.name)
        )
    statement = sql.SQL("COPY (SELECT {} FROM {}{} ORDER BY {} LIMIT {}) TO STDOUT").format(
        _columns(table), source, _where(conditions), key, sql.Literal(size)
    )
    lines, whole = await copy_out(conn, statement.as_bytes(conn), CHUNK_BYTES_MAX)
    if not whole:
        await conn.close()
        return ReadChunk(snapshot, lines, more=True)
    return ReadChunk(snapshot, lines, more=bound is not None or len(lines) == size, bound=bound)


async def _by_pages(
    conn: Connection, snapshot: str, table: ReadTable, asked: Asked, after: Sequence[str], size: int
) -> ReadChunk:
    """Read what lies on the next pages."""
    leaf, first = _leaf(table, after)
    if leaf is None:
        return ReadChunk(snapshot, [], more=False)
    beyond = sql.SQL("ctid >= {} AND ctid < {}").format(sql.Literal(f"({first},0)"), sql.Literal(f"({first + size},0)"))
    statement = sql.SQL("COPY (SELECT {} FROM ONLY {}{}) TO STDOUT").format(
        _columns(table), sql.Identifier(leaf.schema, leaf.name), _where([beyond, *_conditions(table, asked)])
    )
    # A page refers to values that are kept elsewhere, of any size; one page cannot be divided.
    lines, whole = await copy_out(conn, statement.as_bytes(conn), CHUNK_BYTES_MAX if size > 1 else PAGE_BYTES_MAX)
    if not whole:
        raise SourceUnavailable(f"{size} pages of {table.full_name} hold more than {CHUNK_BYTES_MAX >> 20} MB")
    return ReadChunk(snapshot, lines, more=True, page=(str(leaf.oid), str(first + size)))


def _columns(table: ReadTable) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns)


def _conditions(table: ReadTable, asked: Asked) -> list[sql.Composable]:
    # The publication's own text, and the operator's, who has the DSN as well.
    return [sql.SQL("({})").format(sql.SQL(text)) for text in (table.filter, asked.where) if text]


def _where(conditions: Sequence[sql.Composable]) -> sql.Composable:
    return sql.SQL(" WHERE {}").format(sql.SQL(" AND ").join(conditions)) if conditions else sql.SQL("")


def _leaf(table: ReadTable, after: Sequence[str]) -> tuple[Leaf | None, int]:
    """Return where the next chunk of a table without a key begins: a relation, and a page of it."""
    oid, page = (int(after[0]), int(after[1])) if after else (0, 0)
    for leaf in table.leaves:
        if leaf.oid == oid and page < leaf.pages:
            return leaf, page
        if leaf.oid > oid and leaf.pages:
            return leaf, 0
    return None, 0


def _row(values: Sequence[str]) -> sql.Composed:
    # Texts of an unknown type: the server reads each as what it is compared with.
    return sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Literal, values)))


async def not_committing(conn: Connection, xids: frozenset[int]) -> frozenset[int]:
    """Return those of some transactions, by 64-bit ids, that have surely not begun to commit at this moment."""
    low = {xid & _XID_MASK: xid for xid in xids}
    rows = await fetch_all(conn, "not_committing", xids=sorted(low))
    return frozenset(low[row["xid"]] for row in rows)


async def who_runs(conn: Connection, xids: frozenset[int]) -> tuple[int, ...]:
    """Return the process ids of some transactions' sessions."""
    rows = await fetch_all(conn, "who_runs", xids=sorted(xid & _XID_MASK for xid in xids))
    return tuple(row["pid"] for row in rows)


async def writing_now(conn: Connection) -> frozenset[int]:
    """
    Return the transactions that have an id and are not over, by 64-bit ids: prepared ones too, without subtransactions.

    Each holds a lock on its id, until after others see what it did.
    """
    rows = await fetch_all(conn, "writing_now")
    return frozenset(widen(row["xid"], row["near"]) for row in rows)


async def running_now(conn: Connection) -> str:
    """Return a snapshot of this moment, as text."""
    (row,) = await fetch_all(conn, "snapshot_now")
    return str(row["snapshot"])
