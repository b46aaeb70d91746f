"""The small questions that a running stream asks now and then."""

from __future__ import annotations

import select
from collections.abc import Iterable

import psycopg
from psycopg.pq import TransactionStatus

from backend_watcher.errors import SourceUnavailable
from backend_watcher.events.message import OWN
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.queries import fetch_all
from backend_watcher.postgres.translate import translate

HEARTBEAT_PREFIX = f"{OWN}heartbeat"


async def emit_heartbeat(conn: Connection) -> None:
    """Write one small transaction to the WAL, without a table, so that an idle database's slot moves on."""
    await fetch_all(conn, "emit_message", prefix=HEARTBEAT_PREFIX, content="")


async def emit_mark(conn: Connection, prefix: str, content: str) -> None:
    """Write a message as a transaction of its own: the stream brings it after all that committed before."""
    await fetch_all(conn, "emit_message", prefix=prefix, content=content)


async def emit_mark_at(conn: Connection, prefix: str) -> str:
    """Write an empty message as a transaction of its own, and return the LSN that everything seen before is below."""
    (row,) = await fetch_all(conn, "emit_message", prefix=prefix, content="")
    return str(row["lsn"])


async def without_waiting_for_standbys(conn: Connection) -> None:
    """Let commits of this session, which change no row, return when they are on the server's own disk."""
    await fetch_all(conn, "commit_locally")


async def existing_tables(conn: Connection, oids: Iterable[int]) -> tuple[str, ...]:
    """Return the names of those tables that still exist, sorted."""
    rows = await fetch_all(conn, "existing_tables", oids=sorted(oids))
    return tuple(row["name"] for row in rows)


async def check_alive(conn: Connection) -> None:
    """
    Raise SourceUnavailable where the server has ended this session, without asking it anything.

    A fast shutdown ends sessions first, and then waits for walsenders to be confirmed.
    """
    try:
        if conn.closed:
            raise SourceUnavailable("the connection to PostgreSQL is closed")
        if conn.pgconn.transaction_status == TransactionStatus.ACTIVE:
            # Somebody waits for an answer here, and hears of the end with it.
            return
        poll = select.poll()
        poll.register(conn.pgconn.socket, select.POLLIN)
    except psycopg.Error as error:
        raise translate(error) from error
    # An idle session hears nothing but its end; a notice is told apart by a question.
    if poll.poll(0):
        await existing_tables(conn, ())
