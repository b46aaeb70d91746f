"""
The only place a connection to PostgreSQL is opened.

Every session looks the same to the server and reads the same from it: values come in one text form whatever
the role, the database or the server has for defaults, names resolve in `pg_catalog` only, and nothing we do
waits without a limit. The password of the DSN never enters a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import PGconn, Ping

from backend_watcher.errors import ConfigError
from backend_watcher.postgres.refusal import explain, place_of
from backend_watcher.postgres.translate import translate

__all__ = ["APPLICATION_NAME", "Connection", "answering", "connect", "refuses_sessions", "translate"]

APPLICATION_NAME = "backend_watcher"
"""What every session's application_name begins with; no standby is called that."""

CONNECT_TIMEOUT_SECONDS = 10
STATEMENT_TIMEOUT_SECONDS = 30
LOCK_TIMEOUT_SECONDS = 2
ANSWER_SECONDS_MAX = 45.0
"""For any answer; the server itself gives up earlier, where the network still brings its word."""

PING_SECONDS_MAX = 3
KEEPALIVE_IDLE_SECONDS = 10
KEEPALIVE_INTERVAL_SECONDS = 5
KEEPALIVE_COUNT = 3
TCP_USER_TIMEOUT_MILLISECONDS = 30_000
_NAME_BYTES = 63

SEARCH_PATH = "pg_catalog"
_TEXT_SETTINGS = {
    "DateStyle": "ISO,YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "search_path": SEARCH_PATH,
    # How names are written (regclass), and whether NULL in an array is read as one.
    "quote_all_identifiers": "off",
    "array_nulls": "on",
}
_SQL_SETTINGS = {
    "statement_timeout": f"{STATEMENT_TIMEOUT_SECONDS}s",
    "lock_timeout": f"{LOCK_TIMEOUT_SECONDS}s",
    # A policy that hides rows from our role makes a query fail, instead of a copy that lacks them.
    "row_security": "off",
}
_UNCHECKED = "SQL_ASCII"
"""The encoding of a database that takes any bytes for text."""

_REPLICATION_SETTINGS = {"statement_timeout": "0", "lock_timeout": "0"}


class Connection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection that knows how long one waits for an answer on it."""

    answer_seconds_max = ANSWER_SECONDS_MAX


_FOREIGN_PARAMETERS = {"schema", "pgbouncer", "connection_limit", "pool_timeout", "ssl", "sslaccept", "socket_timeout"}


async def connect(
    dsn: str, *, purpose: str, replication: bool = False, read_only: bool = False, any_text: bool = False
) -> Connection:
    """
    Open a connection in autocommit mode; the caller closes it.

    `purpose` is shown in `pg_stat_activity` as `backend_watcher:<purpose>`. With `any_text`, as for replication, text
    comes as it is also where it is no UTF-8. Raises ConfigError if the DSN
    cannot be read, SourceUnavailable if trying again may help, SourceRefused if only a person can.
    """
    parameters = _parameters(dsn, purpose, replication, read_only)
    try:
        # Statements are not prepared on the server: they are few, and a pooler would lose them.
        conn = await Connection.connect("", autocommit=True, prepare_threshold=None, **parameters)
    except (psycopg.Error, OSError) as error:
        raise await explain(error, parameters) from None
    if (replication or any_text) and conn.info.parameter_status("server_encoding") == _UNCHECKED:
        await _take_bytes_as_they_are(conn)
    return conn


async def _take_bytes_as_they_are(conn: Connection) -> None:
    """
    Let a stream bring text that is no UTF-8 too, from a database that never checked it.

    Asked for UTF8 the server checks what it sends, and one such text would end the stream at the same place for ever.
    """
    conn.adapters.register_loader("text", _AnyText)
    try:
        with answering(conn):
            await conn.execute(f"SET client_encoding = {_UNCHECKED}".encode())
    except (psycopg.Error, OSError) as error:
        await conn.close()
        raise translate(error) from error


class _AnyText(Loader):
    """The same as for text columns of a stream; psycopg itself would give bytes."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode("utf-8", "surrogateescape")


@contextmanager
def answering(conn: Connection, seconds: float | None = None) -> Iterator[None]:
    """
    Cut the connection where what is asked inside is not answered in time: in `seconds`, or what is set for all.

    A network that takes everything and brings nothing looks like a server that thinks; TCP itself may not see it,
    because something in between still answers. Whoever waits then hears that the connection is lost.
    """
    timer = asyncio.get_running_loop().call_later(conn.answer_seconds_max if seconds is None else seconds, _cut, conn)
    try:
        yield
    finally:
        timer.cancel()


async def readable(conn: Connection) -> None:
    """
    Return when there is something to read for who alone waits on a connection. Raises psycopg.Error where it is gone.

    It is watched only while somebody waits: data that is left there on purpose would wake the loop again and again.
    """
    loop = asyncio.get_running_loop()
    number = conn.pgconn.socket
    there = loop.create_future()
    loop.add_reader(number, _set_once, there)
    try:
        await there
    finally:
        loop.remove_reader(number)


def _set_once(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def refuses_sessions(dsn: str) -> bool:
    """
    Say whether the server is there and takes no sessions: in a smart shutdown old ones are not told.

    Costs the server a process for a moment, and no login.
    """
    asked = _parameters(dsn, "ping", False, True) | {"connect_timeout": PING_SECONDS_MAX}
    return await asyncio.to_thread(PGconn.ping, make_conninfo("", **asked).encode()) == Ping.REJECT


def _cut(conn: Connection) -> None:
    # Not closed: somebody waits on it, and learns of it by reading.
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(conn.pgconn.socket)) as shared:
        shared.shutdown(socket.SHUT_RDWR)


def address_of(dsn: str) -> str:
    """Name the server and database of a DSN for people, without user or password."""
    parameters = _read(dsn)
    return f"{place_of(parameters)}/{parameters.get('dbname') or ''}"


def host_of(dsn: str) -> str:
    """Return the host that a DSN names; empty where it names none."""
    return str(_read(dsn).get("host") or "")


def _parameters(dsn: str, purpose: str, replication: bool, read_only: bool) -> dict[str, Any]:
    parameters = _read(dsn)
    settings = _TEXT_SETTINGS | (_REPLICATION_SETTINGS if replication else _SQL_SETTINGS)
    if not replication:
        settings["default_transaction_read_only"] = "on" if read_only else "off"
    ours = " ".join(f"-c {name}={value}" for name, value in settings.items())
    wished_timeout = str(parameters.get("connect_timeout") or "0")
    timeout = int(wished_timeout) if wished_timeout.isdecimal() else 0
    parameters.update(
        # The last setting wins: what the DSN asks for stays, except where it contradicts us.
        options=f"{parameters.get('options') or ''} {ours}".strip(),
        application_name=f"{APPLICATION_NAME}:{purpose}"[:_NAME_BYTES],
        client_encoding="UTF8",
        connect_timeout=min(timeout or CONNECT_TIMEOUT_SECONDS, CONNECT_TIMEOUT_SECONDS),
        keepalives=1,
        keepalives_idle=KEEPALIVE_IDLE_SECONDS,
        keepalives_interval=KEEPALIVE_INTERVAL_SECONDS,
        keepalives_count=KEEPALIVE_COUNT,
        tcp_user_timeout=TCP_USER_TIMEOUT_MILLISECONDS,
    )
    parameters.pop("replication", None)
    if replication:
        parameters["replication"] = "database"
    return parameters


def _read(dsn: str) -> dict[str, Any]:
    """Read a DSN. Its text is never quoted: where it is wrong, any part of it may be the password."""
    parameters: dict[str, Any] | None = None
    said = ""
    if dsn.strip() and "\0" not in dsn:
        try:
            parameters = dict(conninfo_to_dict(dsn))
        except psycopg.Error as error:
            said = str(error)
    if parameters is not None and _is_plausible(parameters):
        return parameters
    raise ConfigError([_dsn_fault(dsn, said)], remedy="Correct the DSN of the source.")


def _is_plausible(parameters: dict[str, Any]) -> bool:
    # A password with a bare @ or / shifts what follows it into the host, the port or the database.
    ports = str(parameters.get("port") or "")
    moved = "@" in str(parameters.get("host") or "") or (
        "@" in str(parameters.get("dbname") or "") and not parameters.get("user")
    )
    return not moved and all(not port or port.isdecimal() for port in ports.split(","))


def _dsn_fault(dsn: str, said: str) -> str:
    if not dsn.strip():
        return "the DSN is empty; it looks like postgresql://user:password@host:5432/database"
    scheme = dsn.partition("://")[0]
    if scheme.startswith(("postgresql+", "postgres+")):
        return "the DSN names a Python driver; write postgresql:// without the + and what follows it"
    for name in sorted(_FOREIGN_PARAMETERS):
        if f'"{name}"' in said:
            return f"the DSN has the parameter {name!r}, which PostgreSQL does not know; leave it out"
    return (
        "the DSN cannot be read; it looks like postgresql://user:password@host:5432/database"
        " (in a password write % as %25, / as %2F, : as %3A, @ as %40)"
    )
