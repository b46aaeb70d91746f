"""
A session at the PostgreSQL that keeps a replica, and how far the replica is.

The position of each subscription stands in `watcher.replica_position` and moves in the transaction that applies the
changes. What is applied out of the stream's order stands in `watcher.replica_late`, in the same transaction too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from backend_watcher.errors import SinkGone
from backend_watcher.events.position import Position, format_lsn
from backend_watcher.postgres.connect import Connection, connect
from backend_watcher.postgres.names import quote
from backend_watcher.postgres.queries import QUERIES

LATE_KEPT = 100_000
"""Changes applied late that are remembered; delivery gives one again only if the last of them were not yet let go."""

LOCK_TIMEOUT_SECONDS = 10

_SETTINGS = f"""
SET statement_timeout = 0;
SET lock_timeout = '{LOCK_TIMEOUT_SECONDS}s';
SET idle_in_transaction_session_timeout = 0;
SET temp_buffers = '32MB';
SET jit = off;
-- A batch is joined to its table by the key's index, whatever the statistics say.
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_seqscan = off;
"""

Late = tuple[int, int, bytes]
"""Commit LSN, ordinal and part of a change."""


@dataclass(frozen=True, slots=True)
class Place:
    """Whose position it is: the source's cluster, the slot, the subscription."""

    system_identifier: str
    slot: str
    subscription: str

    def values(self) -> dict[str, Any]:
        """Return what queries call it by."""
        return {"system_identifier": self.system_identifier, "slot": self.slot, "subscription": self.subscription}


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a replica stands, and the transaction that brought it there."""

    position: Position
    xid: int
    late: frozenset[Late]


async def open_session(dsn: str) -> Connection:
    """Connect, and set what every session needs. Raises what psycopg or `connect` raises."""
    conn = await connect(dsn, purpose="replica")
    try:
        await conn.execute(_SETTINGS.encode())
        # A commit that the server may still lose is no commit. What waits for more than its own disk is left as it is.
        row = await (await conn.execute("SELECT current_setting('synchronous_commit')")).fetchone()
        if row is not None and row[0] == "off":
            await conn.execute("SET synchronous_commit = on")
    except BaseException:
        await conn.close()
        raise
    return conn


async def without_triggers(conn: Connection) -> str | None:
    """Let triggers and foreign keys rest, as PostgreSQL's own subscriptions do; return why that is not allowed."""
    return await _try(conn, "SET session_replication_role = replica")


async def with_origin(conn: Connection, name: str) -> str | None:
    """Mark what is written as coming from elsewhere; return why that is not allowed."""
    try:
        (known,) = await ask(conn, "replica_origin_known", name=name)
        if not known["known"]:
            await ask(conn, "replica_origin_create", name=name)
        await ask(conn, "replica_origin", name=name)
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectNotInPrerequisiteState) as error:
        return str(error.diag.message_primary)
    return None


async def _try(conn: Connection, statement: str) -> str | None:
    try:
        await conn.execute(statement.encode())
    except psycopg.errors.InsufficientPrivilege as error:
        return str(error.diag.message_primary)
    return None


async def ask(conn: Connection, query: str, /, **values: Any) -> list[dict[str, Any]]:
    """Ask a named query, and return its rows where it has any."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(QUERIES[query], values or None)
        return await cursor.fetchall() if cursor.description is not None else []


async def make_tables(conn: Connection) -> None:
    """Make the tables that positions stand in. Raises SinkGone where that is not allowed."""
    (found,) = await ask(conn, "replica_tables_exist")
    if found["exist"]:
        return
    try:
        if not found["schema_exists"]:
            await ask(conn, "replica_schema")
        for name in ("replica_position_table", "replica_late_table", "replica_late_index"):
            await ask(conn, name)
    except psycopg.errors.InsufficientPrivilege:
        role, database = conn.info.user, conn.info.dbname
        grant = f"CREATE SCHEMA watcher AUTHORIZATION {quote(role)}"
        raise SinkGone(
            f"the role {role!r} may not make the schema watcher in {database!r}, where the position is kept",
            remedy=f"{grant}; then `watcher resume`.",
        ) from None


async def read_stand(conn: Connection, place: Place) -> Stand:
    """Return where the replica stands; at the very beginning where it is new."""
    values = place.values()
    await ask(conn, "replica_begin", **values)
    (row,) = await ask(conn, "replica_position", **values)
    late = await ask(conn, "replica_late_ahead", **values)
    return Stand(Position(int(row["commit_lsn"]), row["ordinal"]), row["xid"], frozenset(map(_late, late)))


async def move(conn: Connection, place: Place, stand: Stand, to: Position, xid: int) -> bool:
    """Move the position, in the transaction that is open; False where it is not where we believed it to be."""
    moved = await ask(
        conn,
        "replica_move",
        **place.values(),
        commit_lsn=format_lsn(to.commit_lsn),
        ordinal=to.ordinal,
        xid=xid,
        from_lsn=format_lsn(stand.position.commit_lsn),
        from_ordinal=stand.position.ordinal,
    )
    return bool(moved)


async def add_late(conn: Connection, place: Place, changes: Sequence[Late]) -> set[Late]:
    """Note changes as applied late, in the transaction that is open; return those that were not yet."""
    added = await ask(
        conn,
        "replica_late_add",
        **place.values(),
        lsns=[format_lsn(lsn) for lsn, _, _ in changes],
        ordinals=[ordinal for _, ordinal, _ in changes],
        parts=[part for _, _, part in changes],
    )
    await ask(conn, "replica_late_prune", **place.values(), kept=LATE_KEPT)
    return set(map(_late, added))


def _late(row: dict[str, Any]) -> Late:
    return int(row["commit_lsn"]), row["ordinal"], bytes(row["part"])
