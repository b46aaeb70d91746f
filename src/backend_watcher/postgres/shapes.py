"""What the watched tables look like now: columns, keys, identities, partitions, and the types of the user's in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backend_watcher.errors import SourceError
from backend_watcher.events.table import qualify
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.names import for_statement
from backend_watcher.postgres.queries import fetch_all
from backend_watcher.postgres.surroundings import SCHEMAS_SINCE


@dataclass(frozen=True, slots=True)
class ColumnShape:
    """
    One column; `number` stays the same when it is renamed.

    `filled` says that rows which were there before it may have something in it without having been written.
    """

    number: int
    name: str
    type_oid: int
    type_name: str
    not_null: bool
    generated: str
    filled: bool


@dataclass(frozen=True, slots=True)
class RelationShape:
    """
    One table or partition.

    `storage` is another number after a rewrite or a truncate, `touched` another text after any change of a column.
    `identified`: an UPDATE could be published. `key` has the numbers of the primary key's columns. A partition has its
    `parent`, and no columns of its own here; `born` says that it was made in the transaction that attached it, and
    `empty` that there was nothing in it when it was first seen. `altered`: a column was touched since it was made.
    """

    oid: int
    schema: str
    name: str
    quoted: str
    kind: str
    replica_identity: str
    identified: bool
    storage: int
    touched: str
    published: bool
    key: tuple[int, ...] = ()
    columns: tuple[ColumnShape, ...] = ()
    parent: int | None = None
    born: bool = False
    empty: bool = False
    altered: bool = False

    @property
    def full_name(self) -> str:
        """What its changes are routed by."""
        return qualify(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class TypeShape:
    """
    A type of the user's: what it is `within` (OIDs), the labels of an enum, the attributes of a composite.

    `altered`: one of these was touched since it was made.
    """

    oid: int
    name: str
    within: tuple[int, ...] = ()
    labels: tuple[tuple[int, str], ...] = ()
    attributes: tuple[tuple[int, str, int, str], ...] = ()
    altered: bool = False

    @property
    def parts(self) -> tuple[int, ...]:
        """The OIDs of the types it is made of."""
        return (*self.within, *(type_oid for _, _, type_oid, _ in self.attributes))


@dataclass(frozen=True, slots=True)
class Shapes:
    """Everything at one moment, by OID. `needs_identity`: the publication sends updates or deletes."""

    relations: Mapping[int, RelationShape]
    types: Mapping[int, TypeShape]
    needs_identity: bool = True


async def look(
    conn: Connection,
    publication: str,
    names: Sequence[tuple[str, str]],
    oids: Iterable[int],
    *,
    known: Iterable[int] = (),
    needs_identity: bool = True,
) -> Shapes:
    """
    Look at the tables of these names and OIDs, at what the publication names, and at all their partitions.

    Of partitions that are not `known` it is said whether they are empty.
    """
    schemas, tables = [schema for schema, _ in names], [name for _, name in names]
    wished = {"publication": publication, "schemas": schemas, "names": tables, "oids": list(oids)}
    relations = [_relation(row) for row in await fetch_all(conn, "shapes", **wished)]
    used = {column.type_oid for relation in relations for column in relation.columns}
    types = [_type(row) for row in await fetch_all(conn, "shape_types", types=sorted(used))]
    there = set(known)
    fresh = [one.oid for one in relations if one.born and one.kind == "r" and one.oid not in there]
    empty = await _empty(conn, fresh) if fresh and there else set[int]()
    found = {one.oid: replace(one, empty=one.oid in empty) for one in relations}
    return Shapes(found, {one.oid: one for one in types}, needs_identity)


async def sent(conn: Connection, publication: str) -> list[tuple[str, str]]:
    """Return the schema and name of every table that a publication sends, a partition by its root."""
    schemas: list[str] = []
    if conn.info.server_version >= SCHEMAS_SINCE:
        schemas = [row["schema"] for row in await fetch_all(conn, "published_schemas", publication=publication)]
    rows = await fetch_all(conn, "sent", publication=publication, schemas=schemas)
    return [(row["schema"], row["name"]) for row in rows]


async def _empty(conn: Connection, oids: list[int]) -> set[int]:
    try:
        rows = await fetch_all(conn, "partition_sizes", oids=oids)
    except SourceError:
        return set()  # somebody has locked one: not known to be empty
    return {row["oid"] for row in rows if row["size_bytes"] == 0}


def _relation(row: Mapping[str, Any]) -> RelationShape:
    columns = tuple(ColumnShape(**column) for column in row["columns"] or ())
    changed = {
        "columns": columns,
        "key": tuple(row["key"] or ()),
        "quoted": for_statement(row["schema"], row["name"], row["quoted"]),
        "touched": row["touched"] or "",
    }
    return RelationShape(**{**row, **changed})


def _type(row: Mapping[str, Any]) -> TypeShape:
    pairs = {name: tuple(tuple(one) for one in row[name] or ()) for name in ("labels", "attributes")}
    return TypeShape(**{**row, **pairs, "within": tuple(row["within"] or ())})
