"""Values as their types write them, whatever characters stand in the question."""

from __future__ import annotations

from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.printed import fetch


async def test_values_come_as_their_types_write_them(conn: Connection) -> None:
    query = b"SELECT true, '10.0.0.1'::inet, 'ab'::char(4), NULL::int, $1::text AS \"%s\", $2::int[]"
    assert await fetch(conn, query, ["%d", [1, 2]]) == [[b"t", b"10.0.0.1", b"ab  ", None, b"%d", b"{1,2}"]]
    assert await fetch(conn, b"SELECT 1 WHERE false") == []
