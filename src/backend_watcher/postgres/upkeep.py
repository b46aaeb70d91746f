"""The two small questions that a running stream asks now and then."""

from __future__ import annotations

from collections.abc import Iterable

from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.queries import fetch_all

HEARTBEAT_PREFIX = "backend_watcher.heartbeat"


async def emit_heartbeat(conn: Connection) -> None:
    """Write one small transaction to the WAL, without a table, so that an idle database's slot moves on."""
    await fetch_all(conn, "emit_message", prefix=HEARTBEAT_PREFIX, content="")


async def existing_tables(conn: Connection, oids: Iterable[int]) -> tuple[str, ...]:
    """Return the names of those tables that still exist, sorted."""
    rows = await fetch_all(conn, "existing_tables", oids=sorted(oids))
    return tuple(row["name"] for row in rows)
