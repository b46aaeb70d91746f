"""
Whether a connection pooler stands between us and PostgreSQL.

A pooler that hands each transaction to another session breaks what the watcher relies on: settings of the session,
its process, its end with the server's. Most carry no replication either. None of them says that it is there, so it is
found by what PostgreSQL itself would never do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from backend_watcher.errors import SourceError, SourceRefused
from backend_watcher.postgres.connect import SEARCH_PATH, Connection, connect
from backend_watcher.postgres.findings import Finding, Level, fault, warning
from backend_watcher.postgres.providers import pooled
from backend_watcher.postgres.queries import fetch_one

DIRECT = "name the host and port of PostgreSQL itself in the DSN"
_LOOKS = 3
"""How often a session is asked which process serves it."""


@dataclass(frozen=True, slots=True)
class Session:
    """
    What was seen of our session.

    `greeted_pid` is the process that the greeting named, `pids` those that answered. `kept` says that the settings
    asked for in the startup message are in force; `shared`, that another open session was served by the same process.
    """

    greeted_pid: int
    pids: tuple[int, ...]
    kept: bool
    shared: bool = False


async def look(conn: Connection, dsn: str) -> Session:
    """Look whose session this is. Opens a second one where the first looks odd."""
    pids: list[int] = []
    kept = True
    for _ in range(_LOOKS):
        row = await fetch_one(conn, "session")
        assert row is not None
        pids.append(row["pid"])
        kept = kept and row["search_path"] == SEARCH_PATH
    session = Session(conn.info.backend_pid, tuple(pids), kept)
    if session.pids == (session.greeted_pid,) * _LOOKS:
        return session
    return Session(session.greeted_pid, session.pids, kept, await _serves_another(dsn, pids[-1]))


async def _serves_another(dsn: str, pid: int) -> bool:
    try:
        async with await connect(dsn, purpose="check", read_only=True) as second, second.transaction():
            row = await fetch_one(second, "session")
            return row is not None and row["pid"] == pid
    except SourceError:
        return False  # nothing is proved by a session that cannot be had


def judge_session(session: Session) -> Iterator[Finding]:
    """Say what is between us and the server, if anything is. Pure."""
    if not session.kept:
        message = "a pooler in the way drops the settings of our sessions (search_path, DateStyle, time limits)"
        yield fault("pooler", "server", message, f"{DIRECT}, not those of the pooler")
    elif session.shared or len(set(session.pids)) > 1:
        message = "a pooler in the way gives one session of PostgreSQL to several of ours (transaction pooling)"
        yield fault("pooler", "server", message, f"{DIRECT}, not those of the pooler")
    elif session.pids[0] != session.greeted_pid:
        # It greets with a process number of its own invention.
        message = "the DSN seems to lead through a connection pooler or a proxy, which may cut or keep our sessions"
        yield warning("pooler", "server", message, DIRECT)


def judge_host(host: str) -> Iterator[Finding]:
    """Say whether a host is known to be a pooler, before anything is asked there. Pure."""
    if (known := pooled(host)) is not None:
        who, instead = known
        yield fault("pooler", "server", f"{host} is {who}, which carries no replication", f"name {instead} in the DSN")


async def refuse_pooler(conn: Connection, dsn: str) -> None:
    """Raise SourceRefused where sessions are not kept: notifications and locks of a session mean nothing there."""
    for finding in judge_session(await look(conn, dsn)):
        if finding.level is Level.FAULT:
            raise SourceRefused(finding.message, remedy=finding.remedy)
