"""
Say in a transaction who asked for it: a request's id, its user, its trace. It takes one line in an application.

    attach_context(connection, request_id=request.id, user=request.user.email, traceparent=traceparent)

It writes one small message into the open transaction (`pg_logical_emit_message`, manual, chapter "System
Administration Functions"), and sets a parameter for as long as it is open, which the triggers of an outbox read. Every
change that follows in it has this as `change.transaction.context`. Rolled back, it is gone too. Needs no other part of
this package, no privilege, and no watcher to be there.
"""

from __future__ import annotations

import json
from typing import Any

PREFIX = "backend_watcher.context"

BYTES_MAX = 8192
"""What all of it may take, as JSON: it travels with every change."""


def context_sql(**values: Any) -> str:
    """
    Return the statement, for a driver that `attach_context` does not know. It has no parameters in it.

    Values are what JSON can say. Raises ValueError where they are too long, TypeError where JSON cannot say them.
    """
    text = json.dumps(values, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    if len(text) > BYTES_MAX:
        raise ValueError(f"the context takes {len(text)} bytes, more than {BYTES_MAX}")
    # Drivers look for their own marks in a statement: % ? and : must not stand in a text of ours.
    for mark in "%?$'":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    literal = text.replace("\\", "\\\\")
    said = f"(SELECT E'{literal}'::text) AS said (what)"
    heard = f"pg_catalog.pg_logical_emit_message(true, '{PREFIX}', said.what)"
    kept = f"pg_catalog.set_config('{PREFIX}', said.what, true)"
    return f"SELECT {heard}, {kept} FROM {said}"  # noqa: S608 - the only text in it was escaped


def attach_context(connection: Any, **values: Any) -> None:
    """
    Attach values to the open transaction of a connection, from here on; what was attached before is replaced.

    `connection` is a DB-API connection or cursor (psycopg, psycopg2, pg8000), Django's `connection`, or SQLAlchemy's
    Connection or Session. In autocommit mode there is no open transaction, and nothing that follows has it.
    """
    statement = context_sql(**values)
    if hasattr(connection, "exec_driver_sql"):
        connection.exec_driver_sql(statement)
    elif callable(getattr(connection, "connection", None)):
        connection.connection().exec_driver_sql(statement)  # a Session of SQLAlchemy
    elif hasattr(connection, "cursor"):
        cursor = connection.cursor()
        try:
            cursor.execute(statement)
        finally:
            cursor.close()
    else:
        connection.execute(statement)


async def attach_context_async(connection: Any, **values: Any) -> None:
    """Do the same on a connection of asyncpg, on psycopg's AsyncConnection, or SQLAlchemy's async ones."""
    statement = context_sql(**values)
    if hasattr(connection, "exec_driver_sql"):
        await connection.exec_driver_sql(statement)
    elif callable(getattr(connection, "connection", None)):
        await (await connection.connection()).exec_driver_sql(statement)  # an AsyncSession of SQLAlchemy
    else:
        await connection.execute(statement)
