"""What a running stream must know of the source around it, asked for in one small query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backend_watcher.events.table import qualify
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.queries import fetch_all, fetch_one
from backend_watcher.postgres.slots import SlotFacts, slot_facts

EVERY_TABLE = 0
"""The entry that stands for FOR ALL TABLES; no object has this OID."""

SCHEMAS_SINCE = 150_000
"""What schemas a publication holds as a whole came with PostgreSQL 15."""
_OPERATIONS = ("insert", "update", "delete", "truncate")


@dataclass(frozen=True, slots=True)
class PublicationSeen:
    """
    A publication itself, without its tables.

    `touched` is another text after every ALTER of it, also after one that was taken back. `generated` is None
    where the version does not know it.
    """

    oid: int
    touched: str
    owner: int
    via_root: bool
    generated: str | None
    operations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TableSeen:
    """A watched table; `entries` are the publication's entries that cover it, which are never changed in place."""

    oid: int
    schema: str
    name: str
    entries: tuple[int, ...]

    @property
    def full_name(self) -> str:
        """What its changes are routed by."""
        return qualify(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class PreparedSeen:
    """The oldest prepared transaction of the cluster, by the server's clock."""

    gid: str
    database: str
    owner: str
    since: str
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Surroundings:
    """
    The source around a stream. `sync_state` is None where our role may not see it; see `standbys.chooses`.

    `fingerprint` is another text whenever `shapes.look` may have another answer; empty where it was not asked for.
    """

    slot: SlotFacts | None
    streams: bool
    sync_state: str | None
    synchronous_standby_names: str
    publication: PublicationSeen | None
    tables: tuple[TableSeen, ...]
    fingerprint: str
    prepared: PreparedSeen | None = None


async def look(
    conn: Connection,
    *,
    slot: str,
    pid: int,
    publication: str,
    names: Sequence[tuple[str, str]],
    oids: Sequence[int] = (),
    fingerprint: bool = False,
    heartbeat: str | None = None,
) -> Surroundings:
    """
    Look at everything at once. `pid` is our walsender's; tables are found by their names and by their OIDs.

    `heartbeat` is the prefix of a message to be written along with it.
    """
    row = await fetch_one(
        conn,
        "surroundings",
        slot=slot,
        pid=pid,
        publication=publication,
        schemas=[schema for schema, _ in names],
        names=[name for _, name in names],
        oids=list(oids),
        fingerprint=fingerprint,
        heartbeat=heartbeat,
    )
    assert row is not None
    seen: dict[str, Any] | None = row["publication"]
    entries: dict[int, list[int]] = {}
    for relation, entry in row["entries"] or ():
        entries.setdefault(relation, []).append(entry)
    tables = tuple(_table(table, entries) for table in row["tables"] or ())
    return Surroundings(
        slot_facts(row["slot"], row["wal_held_bytes"], row["catalog_xmin_age"]) if row["slot"] else None,
        row["streams"],
        row["sync_state"],
        row["synchronous_standby_names"],
        _publication(seen) if seen else None,
        await _covered(conn, publication, seen, tables) if seen else tables,
        row["fingerprint"] or "",
        PreparedSeen(**row["prepared"]) if row["prepared"] else None,
    )


def _table(seen: dict[str, Any], entries: Mapping[int, Sequence[int]]) -> TableSeen:
    # A partition is covered by the entries of what it is a part of.
    relations = {seen["oid"], *(seen["ancestors"] or ())}
    covering = sorted(entry for relation in relations for entry in entries.get(relation, ()))
    return TableSeen(seen["oid"], seen["schema"], seen["name"], tuple(covering))


def _publication(seen: dict[str, Any]) -> PublicationSeen:
    operations = tuple(operation for operation in _OPERATIONS if seen[operation])
    return PublicationSeen(seen["oid"], seen["touched"], seen["owner"], seen["via_root"], seen["generated"], operations)


async def _covered(
    conn: Connection, publication: str, seen: dict[str, Any], tables: tuple[TableSeen, ...]
) -> tuple[TableSeen, ...]:
    """Add what covers tables without naming them. Asked only where that may be: ours names each."""
    if seen["all_tables"]:
        return tuple(replace(table, entries=(EVERY_TABLE, *table.entries)) for table in tables)
    if conn.info.server_version < SCHEMAS_SINCE or all(table.entries for table in tables):
        return tables
    rows = await fetch_all(conn, "published_schemas", publication=publication)
    schemas = {row["schema"]: row["oid"] for row in rows}
    return tuple(
        replace(table, entries=(*table.entries, schemas[table.schema])) if table.schema in schemas else table
        for table in tables
    )
