"""What a server prints: each value as its type writes it, as bytes, without a Python value in between."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import AsyncRawCursor

from backend_watcher.postgres.connect import Connection, answering

Texts = list[bytes | None]
"""One row; None for NULL."""


async def fetch(conn: Connection, statement: bytes, values: Sequence[object] = ()) -> list[Texts]:
    """
    Ask something with `$1`, `$2`, … in it, and return what the server printed. Raises psycopg's errors.

    Not by a cast to text: that writes some types otherwise than their own output does (`true` for `t`).
    """
    async with AsyncRawCursor(conn) as cursor:
        with answering(conn):
            await cursor.execute(statement, values)
        result = cursor.pgresult
        assert result is not None
        columns = range(result.nfields)
        return [[result.get_value(row, column) for column in columns] for row in range(result.ntuples)]
