"""The queries of `sql/*.sql` by their names, and how they are asked."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from backend_watcher.postgres.connect import Connection, answering
from backend_watcher.postgres.translate import translating

_HEAD = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load_queries() -> dict[str, bytes]:
    """Read every query of the package: each begins with `-- name: …`, and says in a comment what it is for."""
    found: dict[str, bytes] = {}
    for file in resources.files("backend_watcher.postgres").joinpath("sql").iterdir():
        if file.name.endswith(".sql"):
            _, *pieces = _HEAD.split(file.read_text(encoding="utf-8"))
            for name, text in zip(pieces[::2], pieces[1::2], strict=True):
                if name in found:
                    raise ValueError(f"two queries are named {name!r}")
                found[name] = text.strip().encode()
    return found


QUERIES = load_queries()


async def fetch_all(conn: Connection, query: str, /, **values: Any) -> list[dict[str, Any]]:
    """Ask a named query and return its rows."""
    with translating(), answering(conn):
        async with conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(QUERIES[query], values)
            return await cursor.fetchall()


async def fetch_one(conn: Connection, query: str, /, **values: Any) -> dict[str, Any] | None:
    """Ask a named query for at most one row."""
    rows = await fetch_all(conn, query, **values)
    return rows[0] if rows else None


async def run(conn: Connection, statement: sql.Composed) -> None:
    """Run a statement that takes no parameters: a definition, whose names are quoted by `psycopg.sql`."""
    with translating(), answering(conn):
        await conn.execute(statement)
