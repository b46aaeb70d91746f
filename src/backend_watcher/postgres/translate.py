"""
Every error of psycopg becomes one of ours here, and nowhere else.

Where the server names an SQLSTATE, it decides: texts differ between versions and languages. Only the
primary message is carried on: details and hints may quote rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from backend_watcher.errors import (
    Bug,
    ProtocolError,
    SourceError,
    SourceRefused,
    SourceUnavailable,
    WatcherError,
    in_one_line,
)
from backend_watcher.events.position import parse_lsn

_CLASSES: dict[str, type[SourceError]] = {
    "08": SourceUnavailable,  # connection exceptions
    "53": SourceUnavailable,  # insufficient resources: connections, memory, disk
    "57": SourceUnavailable,  # operator intervention: shutting down, starting up, cancelled
    "58": SourceUnavailable,  # errors of the server's operating system
}
"""By the first two characters of the SQLSTATE; everything not named here is a refusal."""

_CODES: dict[str, tuple[type[SourceError], str]] = {
    "08P01": (SourceRefused, "Connect to PostgreSQL itself: a pooler in between does not speak all of its protocol."),
    "25006": (SourceRefused, "Point the DSN at the primary: this server only reads."),
    "28000": (SourceRefused, "Allow this role, database and address in pg_hba.conf, or correct the DSN."),
    "28P01": (SourceRefused, "Correct the password in the DSN."),
    "3D000": (SourceRefused, "Correct the database in the DSN, or create it."),
    "40001": (SourceUnavailable, "Another transaction came in between; the watcher tries again by itself."),
    "40P01": (SourceUnavailable, "Another transaction came in between; the watcher tries again by itself."),
    "42501": (SourceRefused, "Run `watcher check`: it names each missing privilege with its GRANT."),
    "53300": (SourceUnavailable, "Raise max_connections or max_wal_senders, or close connections."),
    "53400": (SourceRefused, "Raise max_replication_slots, or drop slots that nobody uses."),
    "55006": (SourceUnavailable, "Somebody else is using it; the watcher tries again by itself."),
    "55P03": (SourceUnavailable, "Another session holds a lock on it; the watcher tries again by itself."),
    "57014": (SourceUnavailable, "It took longer than the watcher allows itself on the source; it tries again."),
    "57P04": (SourceRefused, "The database was dropped. Correct the database in the DSN."),
}

_STATE = re.compile(r"\(SQLSTATE ([0-9A-Z]{5})\)")


def translate(error: BaseException) -> WatcherError:
    """Say a failure of psycopg, or of the network below it, in our words."""
    if isinstance(error, WatcherError):
        return error
    if isinstance(error, psycopg.Error):
        state = error.sqlstate
        if state is not None:
            return _of_server(error, state)
        # Without an SQLSTATE the server said nothing: the connection broke, or psycopg was used wrongly.
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return SourceUnavailable(f"the connection to PostgreSQL is lost: {one_line(str(error))}")
    if isinstance(error, OSError):  # TimeoutError is one
        reason = one_line(str(error)) or type(error).__name__
        return SourceUnavailable(f"the connection to PostgreSQL is lost: {reason}")
    return Bug(f"{type(error).__name__}: {one_line(str(error))}")


@contextmanager
def translating() -> Iterator[None]:
    """Let only our own errors out of the block."""
    try:
        yield
    except (psycopg.Error, OSError) as error:
        raise translate(error) from error
    except ValueError as error:
        # Bytes spoilt on their way are no text, no number, no JSON any more.
        raise ProtocolError(f"an answer of the server cannot be read: {in_one_line(error)}") from error


def read_lsn(text: str) -> int:
    """Read an LSN that the server said. Raises ProtocolError if it is none."""
    with translating():
        return parse_lsn(text)


def error_of(state: str, message: str) -> SourceError:
    """Make the error that an SQLSTATE stands for."""
    exact = _CODES.get(state)
    if exact is not None:
        kind, remedy = exact
        return kind(message, remedy=remedy)
    return _CLASSES.get(state[:2], SourceRefused)(message)


def state_of(error: WatcherError) -> str | None:
    """Return the SQLSTATE that the server gave, None if the error did not come from it."""
    match = _STATE.search(error.message)
    return match[1] if match else None


def one_line(text: str) -> str:
    """Write a text of any length on one line, without control characters."""
    words = " ".join(text.split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words)


def _of_server(error: psycopg.Error, state: str) -> SourceError:
    said = one_line(error.diag.message_primary or str(error))
    return error_of(state, f"PostgreSQL says: {said} (SQLSTATE {state})")
