"""LISTEN: names as they are, what comes at once, and how full the queue is."""

from __future__ import annotations

import pytest

from backend_watcher.errors import SourceUnavailable
from backend_watcher.postgres import notifications
from backend_watcher.postgres.connect import Connection

from .conftest import make


async def test_what_comes_is_returned_and_nothing_after_a_time(conn: Connection) -> None:
    await notifications.listen(conn, ["orders", 'a "b"; DROP TABLE x;--'])
    await make(conn, "NOTIFY orders, 'x'", "SELECT pg_notify('a \"b\"; DROP TABLE x;--', 'ü')")
    found = await notifications.wait(conn, 1)
    while len(found) < 2:
        found += await notifications.wait(conn, 1)
    assert found == [("orders", b"x"), ('a "b"; DROP TABLE x;--', "ü".encode())]
    assert await notifications.wait(conn, 0.01) == []


async def test_the_queue_is_empty(conn: Connection) -> None:
    assert 0 <= await notifications.queue_usage(conn) < 0.1


async def test_a_connection_that_is_cut_says_so(conn: Connection, dsn: str) -> None:
    await notifications.listen(conn, ["orders"])
    await conn.close()
    with pytest.raises(SourceUnavailable):
        await notifications.wait(conn, 1)
