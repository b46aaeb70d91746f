"""LISTEN: what is asked for, and what comes. The session is in no transaction while it waits, so it holds up nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from psycopg import sql

from backend_watcher.postgres.connect import Connection, answering
from backend_watcher.postgres.queries import fetch_one
from backend_watcher.postgres.translate import translating


class Notified(NamedTuple):
    """What somebody notified."""

    channel: str
    payload: bytes


async def listen(conn: Connection, channels: Sequence[str]) -> None:
    """Listen to channels, by their names as they are."""
    with translating(), answering(conn):
        for channel in channels:
            await conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))


async def wait(conn: Connection, seconds: float, *, at_once_max: int = 10_000) -> list[Notified]:
    """Return what came, as soon as something has, or [] after so many seconds."""
    found: list[Notified] = []
    with translating():
        async for one in conn.notifies(timeout=seconds, stop_after=1):
            found.append(Notified(one.channel, one.payload.encode("utf-8", "surrogateescape")))
            if len(found) >= at_once_max:
                break
    return found


async def queue_usage(conn: Connection) -> float:
    """Return how full the server's queue of notifications is, from 0 to 1."""
    row = await fetch_one(conn, "notification_queue")
    assert row is not None
    return float(row["usage"])
