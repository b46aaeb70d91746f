"""
Event triggers that tell of DDL in the stream itself, where the user wants them and the role may make them.

They only make it faster: what they would tell is found without them too, by a look each few seconds. So nothing here
stops anybody. See `sql/ddl_triggers.sql`.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from typing import Literal

from backend_watcher.errors import SourceRefused
from backend_watcher.events.message import DDL
from backend_watcher.postgres.catalog import Server
from backend_watcher.postgres.connect import Connection, answering
from backend_watcher.postgres.findings import Finding, ok, warning
from backend_watcher.postgres.queries import fetch_all
from backend_watcher.postgres.translate import translating

PREFIX = DDL
"""What the messages are called; their content is JSON with `tag`, `event` and `objects`."""

DdlTriggers = Literal["off", "auto"]

_TRIGGERS = 2


def script() -> str:
    """Return the statements, for a person to run."""
    folder = resources.files("backend_watcher.postgres").joinpath("sql")
    return folder.joinpath("ddl_triggers.sql").read_text(encoding="utf-8")


async def are_there(conn: Connection) -> bool:
    """Say whether all of them are there and enabled."""
    return len(await fetch_all(conn, "ddl_triggers")) == _TRIGGERS


async def install(conn: Connection) -> str | None:
    """Make those that are missing; return why that is refused, None where they are there."""
    if await are_there(conn):
        return None
    try:
        with translating(), answering(conn):
            await conn.execute(script().encode())
    except SourceRefused as refused:
        return refused.message
    return None


def judge_triggers(wish: DdlTriggers, there: bool, server: Server) -> Iterator[Finding]:
    """Say how fast schema changes are noticed, and what would make it faster. Pure."""
    by_looks = "schema changes of watched tables are noticed by a look every few seconds"
    if there:
        yield ok("ddl_triggers", "server", "event triggers tell of schema changes at once")
    elif wish == "off":
        better = 'source.ddl_triggers = "auto" adds event triggers that tell of them at once'
        yield ok("ddl_triggers", "server", f"{by_looks}; {better}")
    elif server.is_superuser:
        yield ok("ddl_triggers", "server", "event triggers that tell of schema changes do not exist yet; they are made")
    else:
        message = f"{by_looks}: role {server.role!r} may not make event triggers"
        remedy = "watcher schema triggers | psql -1 … -- as a superuser; or leave source.ddl_triggers off"
        yield warning("ddl_triggers", "server", message, remedy)
