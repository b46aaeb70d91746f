"""Replication slots: what PostgreSQL keeps for us, and who reads it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg

from backend_watcher.errors import SourceRefused, SourceUnavailable
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.names import check_slot_name
from backend_watcher.postgres.queries import QUERIES, fetch_all, fetch_one
from backend_watcher.postgres.translate import read_lsn, translate

PLUGIN = "pgoutput"
CREATE_TIMEOUT_SECONDS = 30.0
_FAILOVER_SINCE = 170_000
_BLOCKERS_SHOWN_MAX = 5


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """A slot as it is now. What a version of PostgreSQL does not know is False or None."""

    name: str
    type: str
    plugin: str | None
    database: str | None
    temporary: bool
    active: bool
    active_pid: int | None
    restart_lsn: int | None
    confirmed_flush_lsn: int | None
    wal_status: str | None
    safe_wal_size_bytes: int | None
    wal_held_bytes: int | None
    catalog_xmin_age: int | None
    two_phase: bool
    failover: bool
    synced: bool
    invalidation_reason: str | None

    @property
    def is_lost(self) -> bool:
        """PostgreSQL removed the WAL it needs, or closed it for good: changes are missing."""
        return self.wal_status == "lost" or self.invalidation_reason is not None


@dataclass(frozen=True, slots=True)
class WalSender:
    """A connection that reads WAL. States and positions are None where our role may not see them."""

    pid: int
    role: str | None
    application_name: str | None
    state: str | None
    sync_state: str | None
    sync_priority: int | None
    sent_lsn: int | None
    write_lsn: int | None
    flush_lsn: int | None
    replay_lsn: int | None

    @property
    def is_synchronous(self) -> bool:
        """The application's commits wait for it, or may be made to any moment."""
        return self.sync_state in {"sync", "quorum", "potential"}


@dataclass(frozen=True, slots=True)
class Blocker:
    """A transaction that writes, or, without a pid, one that is prepared. What our role may not see is None."""

    pid: int | None
    prepared: str | None
    role: str | None
    database: str | None
    age_seconds: float | None

    @property
    def who(self) -> str:
        """Name it."""
        return f"pid {self.pid}" if self.pid is not None else f"prepared transaction {self.prepared!r}"

    @property
    def literal(self) -> str:
        """The name of a prepared transaction as a statement takes it."""
        return "'" + (self.prepared or "").replace("'", "''") + "'"

    def __str__(self) -> str:
        age = f", open for {self.age_seconds:.0f} s" if self.age_seconds is not None else ""
        return f"{self.who} ({self.role} on {self.database}{age})" if self.role else self.who


async def look(conn: Connection, name: str) -> SlotFacts | None:
    """Return a slot, None if there is none of that name."""
    row = await fetch_one(conn, "slot", name=name)
    if row is None:
        return None
    return slot_facts(row["slot"], row["wal_held_bytes"], row["catalog_xmin_age"])


def slot_facts(slot: dict[str, Any], wal_held_bytes: int | None, catalog_xmin_age: int | None) -> SlotFacts:
    """Read a slot from the JSON of its row."""
    return SlotFacts(
        name=slot["slot_name"],
        type=slot["slot_type"],
        plugin=slot["plugin"],
        database=slot["database"],
        temporary=slot["temporary"],
        active=slot["active"],
        active_pid=slot["active_pid"],
        restart_lsn=_lsn(slot["restart_lsn"]),
        confirmed_flush_lsn=_lsn(slot["confirmed_flush_lsn"]),
        wal_status=slot["wal_status"],
        safe_wal_size_bytes=slot["safe_wal_size"],
        wal_held_bytes=wal_held_bytes,
        catalog_xmin_age=catalog_xmin_age,
        two_phase=bool(slot.get("two_phase")),
        failover=bool(slot.get("failover")),
        synced=bool(slot.get("synced")),
        invalidation_reason=slot.get("invalidation_reason"),
    )


async def create(
    conn: Connection, name: str, failover: bool = False, *, timeout_seconds: float = CREATE_TIMEOUT_SECONDS
) -> int:
    """
    Create a logical slot and return its consistent point: everything that commits after it is sent.

    PostgreSQL waits for every transaction that runs now. After `timeout_seconds` SourceUnavailable names them,
    and no half-made slot is left. The publication must be there already.
    """
    check_slot_name(name)
    if failover and conn.info.server_version < _FAILOVER_SINCE:
        raise SourceRefused("this server has no failover slots", remedy="Use PostgreSQL 17 or later, or leave it off.")
    query = QUERIES["create_failover_slot" if failover else "create_slot"]
    try:
        async with conn.transaction():
            await conn.execute(QUERIES["limit_statement"], {"milliseconds": str(max(1, int(timeout_seconds * 1000)))})
            await conn.execute(QUERIES["notice_leaving"])
            cursor = await conn.execute(query, {"name": name})
            row = await cursor.fetchone()
    except psycopg.errors.QueryCanceled as error:
        raise await _waited(conn, name, timeout_seconds) from error
    except (psycopg.Error, OSError) as error:
        raise translate(error) from error
    assert row is not None
    return read_lsn(row[0])


async def drop(conn: Connection, name: str) -> bool:
    """Drop a slot; returns False if there was none. Raises SourceUnavailable while somebody reads from it."""
    check_slot_name(name)
    try:
        await conn.execute(QUERIES["drop_slot"], {"name": name})
    except psycopg.errors.UndefinedObject:
        return False
    except (psycopg.Error, OSError) as error:
        raise translate(error) from error
    return True


async def end_reader(conn: Connection, name: str, pid: int) -> None:
    """End the process that reads a slot, if it is `pid`: a session of ours that the server has not missed yet."""
    await fetch_all(conn, "end_reader", name=name, pid=pid)


async def wal_held_bytes(conn: Connection, name: str) -> int | None:
    """Return how much WAL the server keeps for a slot; None without a slot, or if it keeps nothing any more."""
    row = await fetch_one(conn, "slot", name=name)
    return None if row is None else row["wal_held_bytes"]


async def walsenders(
    conn: Connection, *, application_name: str | None = None, pid: int | None = None
) -> tuple[WalSender, ...]:
    """
    Return who reads WAL from this server: all, or those of one application_name or pid.

    A role without `pg_read_all_stats` sees no sync_state, not even its own: see `standbys.chooses`.
    """
    rows = await fetch_all(conn, "wal_senders", application_name=application_name, pid=pid)
    lsns = ("sent_lsn", "write_lsn", "flush_lsn", "replay_lsn")
    return tuple(WalSender(**row | {name: _lsn(row[name]) for name in lsns}) for row in rows)


async def blockers(conn: Connection) -> tuple[Blocker, ...]:
    """Return the open transactions that the creation of a slot would wait for, oldest first, at most a few."""
    rows = await fetch_all(conn, "open_transactions", limit=_BLOCKERS_SHOWN_MAX)
    return tuple(Blocker(r["pid"], r["prepared"], r["role"], r["database"], r["age_seconds"]) for r in rows)


async def _waited(conn: Connection, name: str, seconds: float) -> SourceUnavailable:
    """Name the transactions that the creation of a slot waits for."""
    found = await blockers(conn)
    words = ", ".join(map(str, found)) or "none is left by now"
    return SourceUnavailable(
        f"slot {name!r} could not be created within {seconds:g} s; it waits for open transactions: {words}",
        remedy=f"It is tried again by itself once they end{f', or: {ending(found)}' if found else ''}",
    )


def ending(blockers: Iterable[Blocker]) -> str:
    """Say how a person ends them."""
    return "end them yourself: " + " ".join(
        f"SELECT pg_terminate_backend({one.pid});" if one.pid is not None else f"ROLLBACK PREPARED {one.literal};"
        for one in blockers
    )


def _lsn(text: str | None) -> int | None:
    return None if text is None else read_lsn(text)
