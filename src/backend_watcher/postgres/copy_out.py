"""
COPY … TO STDOUT, a whole answer at a time and not a row at a time.

psycopg hands out one CopyData for each turn of the event loop; libpq has a hundred of them at once. So its functions
are called here as the replication stream calls them.
"""

from __future__ import annotations

from psycopg import Error
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGresult

from backend_watcher.errors import SourceUnavailable
from backend_watcher.postgres.connect import Connection, answering, readable
from backend_watcher.postgres.translate import error_of, one_line, translate


async def copy_out(conn: Connection, statement: bytes, limit_bytes: int) -> tuple[list[bytes], bool]:
    """
    Return the CopyData of a COPY, and whether that was all.

    Where `limit_bytes` are exceeded the rest is not read, and the connection is of no use any more. Raises a
    SourceError.
    """
    pgconn = conn.pgconn
    try:
        with answering(conn):
            pgconn.send_query(statement)
            pgconn.flush()
            await _expect(conn, ExecStatus.COPY_OUT)
            lines, whole = await _lines(conn, limit_bytes)
            if whole:
                await _expect(conn, ExecStatus.COMMAND_OK)
                await _result(conn)
            return lines, whole
    except (Error, OSError) as error:
        raise translate(error) from error


async def _lines(conn: Connection, limit_bytes: int) -> tuple[list[bytes], bool]:
    lines: list[bytes] = []
    total = 0
    take = conn.pgconn.get_copy_data
    while total <= limit_bytes:
        size, data = take(1)
        if size > 0:
            lines.append(bytes(data))
            total += size
        elif size == 0:
            await readable(conn)
            conn.pgconn.consume_input()
        else:
            return lines, True
    return lines, False


async def _result(conn: Connection) -> PGresult | None:
    """Return the next result once it is there, None after the last."""
    pgconn = conn.pgconn
    while pgconn.is_busy():
        await readable(conn)
        pgconn.consume_input()
    return pgconn.get_result()


async def _expect(conn: Connection, status: ExecStatus) -> None:
    """Raise what the server said where it did not do what it was asked for."""
    result = await _result(conn)
    if result is not None and result.status == status:
        return
    if result is None:
        raise SourceUnavailable("the connection to PostgreSQL is lost")
    said = one_line((result.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace"))
    state = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode(errors="replace")
    if not state:
        raise SourceUnavailable(f"the connection to PostgreSQL is lost: {one_line(result.get_error_message())}")
    # What is left of the answer: the connection can be used again.
    while await _result(conn) is not None:
        pass
    raise error_of(state, f"{said} (SQLSTATE {state})")
