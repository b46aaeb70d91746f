"""
Keys as texts, which may come from anywhere: how the server itself writes them, and which of them no row has.

A text is cast to the type of its column: `01` of an integer is written `1`, and what is no value of the type is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from backend_watcher.errors import SourceRefused
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.copy_out import copy_out
from backend_watcher.postgres.queries import fetch_all
from backend_watcher.postgres.translate import state_of

Key = tuple[str, ...]

KEYS_MAX = 1_000
"""Keys in one query."""

KEYS_BYTES_MAX = 32 << 20
_NO_VALUE = "22"
"""Class of the SQLSTATEs that say that a text is no value of a type (manual, appendix "PostgreSQL Error Codes")."""


@dataclass(frozen=True, slots=True)
class KeyTypes:
    """
    The types of a key's columns, as SQL writes them.

    `exact` says that values which are equal are written with the same text: not so `1.0` and `1.00` of a numeric.
    """

    types: tuple[str, ...]
    exact: bool


async def key_types(conn: Connection, oid: int, key: Sequence[str]) -> KeyTypes:
    """Look up the types of the columns of a key. Raises a SourceError."""
    rows = await fetch_all(conn, "key_types", oid=oid, names=list(key))
    if len(rows) != len(key):
        raise SourceRefused("the columns of a key are gone", remedy="Ask for its rows by the key of today.")
    return KeyTypes(tuple(row["type"] for row in rows), all(row["exact"] for row in rows))


async def as_written(conn: Connection, types: KeyTypes, keys: Sequence[Key]) -> list[bytes | None]:
    """
    Return each key as COPY writes it, a line; None for what is none. Raises a SourceError.

    Where one of many is none the others are asked for in halves: it is meant for keys of which few are not.
    """
    if len(keys) > KEYS_MAX:
        parts = [await as_written(conn, types, keys[at : at + KEYS_MAX]) for at in range(0, len(keys), KEYS_MAX)]
        return [line for part in parts for line in part]
    if not keys:
        return []
    if any("\0" in text for key in keys for text in key):
        return [None] if len(keys) == 1 else await _in_halves(conn, types, keys)
    statement = sql.SQL("COPY (SELECT {} FROM {} ORDER BY k.n) TO STDOUT").format(_columns(types), _asked(types, keys))
    try:
        lines, whole = await copy_out(conn, statement.as_bytes(conn), KEYS_BYTES_MAX)
    except SourceRefused as error:
        if not (state_of(error) or "").startswith(_NO_VALUE):
            raise
        return [None] if len(keys) == 1 else await _in_halves(conn, types, keys)
    if not whole or len(lines) != len(keys):
        raise SourceRefused("keys were not written back one for one")
    return list(lines)


async def _in_halves(conn: Connection, types: KeyTypes, keys: Sequence[Key]) -> list[bytes | None]:
    middle = len(keys) // 2
    return [*await as_written(conn, types, keys[:middle]), *await as_written(conn, types, keys[middle:])]


async def without_row(
    conn: Connection, types: KeyTypes, source: sql.Composable, key: Sequence[str], keys: Sequence[Key], only: str | None
) -> list[bytes]:
    """
    Return those of some keys that no row of `source` has, each as COPY writes it. Raises a SourceError.

    Rows for which the condition `only` does not hold are none: they are not published.
    """
    alike = [
        sql.SQL("r.{} = k.{}").format(sql.Identifier(name), sql.Identifier(f"c{number}"))
        for number, name in enumerate(key)
    ]
    conditions = [*alike, *([sql.SQL("({})").format(sql.SQL(only))] if only else [])]
    statement = sql.SQL("COPY (SELECT {} FROM {} WHERE NOT EXISTS (SELECT FROM {} AS r WHERE {})) TO STDOUT").format(
        _columns(types), _asked(types, keys), source, sql.SQL(" AND ").join(conditions)
    )
    lines, whole = await copy_out(conn, statement.as_bytes(conn), KEYS_BYTES_MAX)
    if not whole:
        raise SourceRefused(f"{len(keys)} keys are more than {KEYS_BYTES_MAX >> 20} MB", remedy="Ask for fewer.")
    return lines


def _columns(types: KeyTypes) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("k.{}").format(sql.Identifier(f"c{n}")) for n in range(len(types.types)))


def _asked(types: KeyTypes, keys: Sequence[Key]) -> sql.Composed:
    """Write keys as a table `k` with columns n, c0, c1, …, each of its type."""
    names = [sql.Identifier(f"c{number}") for number in range(len(types.types))]
    # The server's own way to write a type.
    casts = [sql.SQL("v.{}::{} AS {}").format(n, sql.SQL(t), n) for n, t in zip(names, types.types, strict=True)]
    rows = [
        sql.SQL("({}, {})").format(sql.Literal(number), sql.SQL(", ").join(map(sql.Literal, key)))
        for number, key in enumerate(keys)
    ]
    return sql.SQL("(SELECT v.n, {} FROM (VALUES {}) AS v (n, {})) AS k").format(
        sql.SQL(", ").join(casts), sql.SQL(", ").join(rows), sql.SQL(", ").join(names)
    )
