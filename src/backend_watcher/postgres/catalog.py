"""What the server and its tables are, as its catalogs say now; rows of yesterday may have had another shape."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from backend_watcher.errors import PreflightFailed, SourceRefused
from backend_watcher.events.table import qualify
from backend_watcher.postgres import providers
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.names import for_statement, format_name, parse_name
from backend_watcher.postgres.queries import fetch_all, fetch_one
from backend_watcher.postgres.translate import read_lsn

_NAMES_MAX = 20_000
_SUGGESTIONS_MAX = 3


@dataclass(frozen=True, slots=True)
class Server:
    """The server, its settings, and what our role may do there. None: no limit, or not in this version."""

    version: int
    version_text: str
    system_identifier: str
    timeline: int
    flush_lsn: int
    in_recovery: bool
    backend_pid: int
    wal_level: str
    max_replication_slots: int
    used_replication_slots: int
    max_wal_senders: int
    used_wal_senders: int
    wal_sender_timeout_seconds: float
    max_slot_wal_keep_bytes: int | None
    idle_slot_timeout_seconds: float | None
    synchronous_standby_names: str
    encoding: str
    database: str
    role: str
    is_superuser: bool
    has_replication: bool
    can_create: bool
    provider: str | None
    output_plugins: str | None = None
    decoding_work_mem_bytes: int = 64 << 20
    max_prepared_transactions: int = 0

    @property
    def major(self) -> int:
        """14, 15 and so on."""
        return self.version // 10_000


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """One column; `generated` is empty, `s`(tored) or `v`(irtual)."""

    name: str
    type_oid: int
    modifier: int
    type_name: str
    generated: str
    not_null: bool


@dataclass(frozen=True, slots=True)
class TableFacts:
    """
    One relation, as it is now.

    `quoted` is its name as a statement needs it. `unidentified` and `without_old_values` name, quoted, the
    relations that hold its rows (the table itself, or its leaf partitions) whose UPDATEs would fail once they
    are published, and whose replica identity is not FULL. `deferrable_key` names the constraint of a primary key
    that two rows may share until the transaction ends.
    """

    oid: int
    schema: str
    name: str
    quoted: str
    kind: str
    persistence: str
    is_system: bool
    primary_key: tuple[str, ...]
    replica_identity: str
    unidentified: tuple[str, ...]
    without_old_values: tuple[str, ...]
    candidate_index: str | None
    columns: tuple[ColumnFacts, ...]
    owner: str
    owned: bool
    can_select: bool
    row_security: bool
    is_partition: bool
    partition_root: str | None
    deferrable_key: str | None = None

    @property
    def full_name(self) -> str:
        """What its changes are routed by."""
        return qualify(self.schema, self.name)

    @property
    def is_publishable(self) -> bool:
        """An ordinary or partitioned table of the user's, whose changes are written to the WAL."""
        return self.kind in {"r", "p"} and self.persistence == "p" and not self.is_system

    @property
    def is_identified(self) -> bool:
        """Its UPDATEs and DELETEs can be published."""
        return not self.unidentified


@dataclass(frozen=True, slots=True)
class Found:
    """What `find_tables` found; `missing` maps a wished name to names that may have been meant."""

    tables: dict[str, TableFacts]
    missing: dict[str, tuple[str, ...]]


async def server(conn: Connection) -> Server:
    """Ask what this server is."""
    row = await fetch_one(conn, "server", settings=providers.MARKER_SETTINGS, roles=providers.MARKER_ROLES)
    if row is None:
        raise SourceRefused("the role of this session was dropped")
    hints = providers.Hints(
        frozenset(row.pop("marker_settings")), frozenset(row.pop("marker_roles")), conn.info.host, row.pop("patroni")
    )
    flush_lsn = read_lsn(row.pop("flush_lsn") or "0/0")
    return Server(**row, flush_lsn=flush_lsn, provider=providers.provider_of(hints))


async def find_tables(conn: Connection, names: Iterable[str]) -> Found:
    """Look for tables by their names as people write them (see `names.parse_name`)."""
    wished = list(dict.fromkeys(names))
    parsed = [parse_name(name) for name in wished]
    rows = await fetch_all(conn, "tables", schemas=[s for s, _ in parsed], names=[n for _, n in parsed])
    found = {wished[row.pop("index")]: _table(row) for row in rows}
    missing = {name: pair for name, pair in zip(wished, parsed, strict=True) if name not in found}
    return Found(found, await _suggestions(conn, missing) if missing else {})


async def tables(conn: Connection, names: Iterable[str]) -> dict[str, TableFacts]:
    """Return the facts of each named table. Raises PreflightFailed, with a line for each that is not there."""
    found = await find_tables(conn, names)
    if found.missing:
        raise PreflightFailed(
            [missing_text(name, close) for name, close in found.missing.items()],
            remedy="Correct the names, or create the tables.",
        )
    return found.tables


def missing_text(name: str, close: tuple[str, ...]) -> str:
    """Say that a table is not there, and what may have been meant."""
    hint = f"; did you mean {' or '.join(repr(other) for other in close)}?" if close else ""
    return f"table {name!r} does not exist{hint}"


async def primary_keys(conn: Connection, oids: Iterable[int]) -> dict[int, tuple[str, ...]]:
    """Return the primary key columns of relations, in key order; () for one that has none."""
    wished = list(oids)
    rows = await fetch_all(conn, "primary_keys", oids=wished)
    return dict.fromkeys(wished, ()) | {row["oid"]: tuple(row["columns"]) for row in rows}


async def primary_key(conn: Connection, relation_oid: int) -> tuple[str, ...]:
    """Return the primary key columns of one relation, in key order; () if it has none."""
    return (await primary_keys(conn, [relation_oid]))[relation_oid]


def _table(row: dict[str, Any]) -> TableFacts:
    root = row["partition_root"]
    return TableFacts(
        **row
        | {
            "quoted": for_statement(row["schema"], row["name"], row["quoted"]),
            "primary_key": tuple(row["primary_key"] or ()),
            "unidentified": tuple(for_statement(*part) for part in row["unidentified"] or ()),
            "without_old_values": tuple(for_statement(*part) for part in row["without_old_values"] or ()),
            "columns": tuple(ColumnFacts(**column) for column in row["columns"] or ()),
            "can_select": bool(row["can_select"]),
            "row_security": bool(row["row_security"]),
            "partition_root": for_statement(*root) if root else None,
        }
    )


async def _suggestions(conn: Connection, missing: Mapping[str, tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    there = [(row["schema"], row["name"]) for row in await fetch_all(conn, "table_names", limit=_NAMES_MAX)]
    return {wished: _close(schema, name, there) for wished, (schema, name) in missing.items()}


def _close(schema: str, name: str, there: list[tuple[str, str]]) -> tuple[str, ...]:
    # The same name, in another schema or another case, is meant more often than a name with other letters.
    same = [format_name(s, n) for s, n in there if n == name]
    same += [format_name(s, n) for s, n in there if n != name and n.lower() == name.lower()]
    near = set(difflib.get_close_matches(name, {n for _, n in there}, n=_SUGGESTIONS_MAX, cutoff=0.7))
    same += [format_name(s, n) for s, n in sorted(there, key=lambda pair: pair[0] != schema) if n in near]
    return tuple(dict.fromkeys(same))[:_SUGGESTIONS_MAX]
