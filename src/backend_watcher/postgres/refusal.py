"""
Why no connection came about, and whether trying again may help.

psycopg does not hand on the SQLSTATE of a refused connection, so known texts stand for it. A server that
speaks another language than English is asked once more by `PQping`, which knows whether it answered at all.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping

from backend_watcher.errors import SourceError, SourceRefused, SourceUnavailable
from backend_watcher.postgres.names import quote
from backend_watcher.postgres.translate import error_of, one_line

# The first text that is found counts: `permission denied for database "x"` is about the permission.
_STATES = {
    "failed to resolve host": "08001",
    "Connection refused": "08001",
    "timeout expired": "08001",
    "No such file or directory": "08001",
    "server closed the connection": "08006",
    "password authentication failed": "28P01",
    "no password supplied": "28P01",
    "authentication failed": "28000",
    "pg_hba.conf": "28000",
    "is not permitted to log in": "28000",
    "permission denied": "42501",
    "must be superuser or replication role": "42501",
    "too many clients": "53300",
    "too many connections": "53300",
    "connection slots are reserved": "53300",
    "exceeds max_wal_senders": "53300",
    "is starting up": "57P03",
    "is shutting down": "57P03",
    "not yet accepting connections": "57P03",
    "not accepting connections": "57P03",
    "in recovery mode": "57P03",
    "unsupported startup parameter": "08P01",
    'role "': "28000",
    'database "': "3D000",
    "does not support SSL": "28000",
    "certificate": "28000",
}
_SHUTTING_DOWN = "is shutting down"
SHUTDOWN_SECONDS = 10.0
"""How long a server that shuts down is left alone: each attempt costs it a process."""

_SILENT = ("08001", "08006", "57P03")
_BEFORE_REASON = re.compile(r".*(?:connection failed|connection is bad| failed):\s", re.DOTALL)
_AFTER_REASON = re.compile(r"\s+(?:DETAIL:|HINT:|Is the server running)", re.DOTALL)
_NO_HBA_LINE = re.compile(r'pg_hba\.conf .* host "([0-9a-f.:]+)"')
_SECRETS = ("password", "sslpassword", "oauth_client_secret")


async def explain(error: Exception, parameters: Mapping[str, Any]) -> SourceError:
    """Say in one line who refused what; `parameters` are those of the connection that failed."""
    reason = _reason(str(error), parameters)
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if state is None:
        state = next((state for text, state in _STATES.items() if text in reason), None)
    place = place_of(parameters)
    silence = f"PostgreSQL at {place} does not answer: {reason}"
    refusal = f"PostgreSQL at {place} refuses {_who(parameters)}: {reason}"
    if state is not None:
        told = error_of(state, silence if state in _SILENT else refusal)
        told.remedy = _mend(reason, parameters) or told.remedy
        if _SHUTTING_DOWN in reason:
            told.after_seconds = SHUTDOWN_SECONDS
        return told
    if "FATAL:" in reason and await asyncio.to_thread(_ping, parameters) == Ping.OK:
        return SourceRefused(refusal)
    return SourceUnavailable(silence)


def _mend(reason: str, parameters: Mapping[str, Any]) -> str | None:
    """Return what grants a connection that was refused for want of a right; None where nothing can be named."""
    user, database = parameters.get("user"), parameters.get("dbname")
    if not user or not database:
        return None
    role = quote(str(user))
    if "is not permitted to log in" in reason:
        return f"ALTER ROLE {role} LOGIN;"
    if "permission denied for database" in reason:
        return f"GRANT CONNECT ON DATABASE {quote(str(database))} TO {role};"
    if match := _NO_HBA_LINE.search(reason):
        width = 128 if ":" in match[1] else 32
        line = f"hostssl {quote(str(database))} {role} {match[1]}/{width} scram-sha-256"
        return f"{line} -- in pg_hba.conf, above others that match; then SELECT pg_reload_conf();"
    return None


def place_of(parameters: Mapping[str, Any]) -> str:
    """Name host and port."""
    host = parameters.get("host") or parameters.get("hostaddr") or os.environ.get("PGHOST") or "the local socket"
    port = parameters.get("port") or os.environ.get("PGPORT") or "5432"
    return f"{host}:{port}"


def _who(parameters: Mapping[str, Any]) -> str:
    user, database = parameters.get("user"), parameters.get("dbname")
    role = f"role {user!r}" if user else "the default role"
    return f"{role} on database {database!r}" if database else role


def _reason(text: str, parameters: Mapping[str, Any]) -> str:
    """Cut a message of libpq down to what it says, without any secret of the DSN."""
    text = _BEFORE_REASON.sub("", text)
    reason = one_line(_AFTER_REASON.split(text, maxsplit=1)[0])
    for secret in filter(None, (str(parameters.get(name) or "") for name in _SECRETS)):
        reason = reason.replace(secret, "***")
    return reason


def _ping(parameters: Mapping[str, Any]) -> int:
    asked = {name: value for name, value in parameters.items() if name != "replication"}
    return PGconn.ping(make_conninfo("", **asked).encode())
