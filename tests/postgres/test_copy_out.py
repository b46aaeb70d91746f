"""COPY's answer, taken as it comes, and what is left of the connection after it."""

from __future__ import annotations

import pytest

from backend_watcher.errors import SourceRefused, SourceUnavailable
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.copy_out import copy_out

BYTES = 1 << 30


async def test_every_line_comes(conn: Connection) -> None:
    lines, whole = await copy_out(conn, b"COPY (SELECT n, NULL FROM generate_series(1, 20000) n) TO STDOUT", BYTES)
    assert whole
    assert lines == [b"%d\t\\N\n" % n for n in range(1, 20001)]


async def test_nothing_is_a_whole_answer(conn: Connection) -> None:
    assert await copy_out(conn, b"COPY (SELECT 1 WHERE false) TO STDOUT", BYTES) == ([], True)


async def test_the_connection_can_be_used_again(conn: Connection) -> None:
    await copy_out(conn, b"COPY (SELECT 1) TO STDOUT", BYTES)
    for statement in (
        b"COPY (SELECT nonsense) TO STDOUT",
        b"COPY (SELECT 1 / (3 - n) FROM generate_series(1, 9) n) TO STDOUT",
    ):
        with pytest.raises(SourceRefused, match="SQLSTATE"):
            await copy_out(conn, statement, BYTES)
        assert await copy_out(conn, b"COPY (SELECT 2) TO STDOUT", BYTES) == ([b"2\n"], True)


async def test_more_than_is_wished_ends_early(conn: Connection) -> None:
    lines, whole = await copy_out(
        conn, b"COPY (SELECT repeat('x', 1000) FROM generate_series(1, 9999)) TO STDOUT", 9000
    )
    assert not whole
    assert 9 <= len(lines) <= 10
    await conn.close()


async def test_a_statement_that_takes_too_long_may_be_tried_again(conn: Connection) -> None:
    await conn.execute("SET statement_timeout = '50ms'")
    with pytest.raises(SourceUnavailable, match="57014"):
        await copy_out(conn, b"COPY (SELECT pg_sleep(60)) TO STDOUT", BYTES)


async def test_a_connection_that_is_cut_is_unavailable(conn: Connection) -> None:
    with pytest.raises(SourceUnavailable):
        await copy_out(conn, b"COPY (SELECT pg_terminate_backend(pg_backend_pid())) TO STDOUT", BYTES)
