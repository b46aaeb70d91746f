"""
Digests of rows by ranges of their keys, computed where the rows are.

A row's digest is 64 bits of a hash of its columns; that of rows is the sum, which asks for no order and shows a row
that is there twice. It is the hash of hash partitions, which all servers compute alike on the same kind of machine:
whether two do so is asked (`way_of`) and not believed. Columns of types whose values are equal only where they print
the same are hashed as they are, which is fast; of all others what they print is hashed (1.0 is 1.00, and prints
otherwise).

A range is everything above one key and up to another. Both sides have to mean the same rows by it, so its ends have to
be of types that are ordered alike everywhere, and not by a collation or by the order in which an enum was made.
"""

# ruff: noqa: S608 - names are quoted, and values are parameters

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import psycopg
from psycopg import sql

from backend_watcher.postgres import reading
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.names import quote
from backend_watcher.postgres.printed import fetch
from backend_watcher.postgres.reading import ReadTable
from backend_watcher.postgres.replica_reading import AS_THEY_COME, TargetRows
from backend_watcher.postgres.translate import translating

QUERY_SECONDS_MAX = 5
"""For one query at the source, which is asked for less than that takes."""

ORDERED_ALIKE = frozenset(
    {16, 17, 20, 21, 23, 26, 650, 700, 701, 774, 829, 869, 1082, 1083, 1114, 1184, 1700, 2950, 3220}
)
"""
Numbers of types whose order is the same on every server.

bool, bytea, int8, int2, int4, oid, cidr, float4, float8, macaddr8, macaddr, inet, date, time, timestamp, timestamptz,
numeric, uuid, pg_lsn.
"""

HASHED_AS_THEY_ARE = {
    16: "boolean",
    17: "bytea",
    20: "bigint",
    21: "smallint",
    23: "integer",
    25: "text",
    26: "oid",
    1043: "character varying",
    1082: "date",
    1083: "time without time zone",
    1114: "timestamp without time zone",
    1184: "timestamp with time zone",
    2950: "uuid",
}
"""Types by number, as the source knows them, and by name, as the target does."""

# Each of these types once, and one that is printed. The last step mixes: the hash of a record adds up those of
# its columns, so two rows that swap a value would have the same sum.
_WAY = b"""
SELECT current_setting('server_encoding') || ' ' || hashint8extended(hash_record_extended(ROW(
    true, '\\x01'::bytea, 1::bigint, 2::smallint, 3::int, 'text'::text COLLATE "C", 4::oid, 'v'::varchar COLLATE "C",
    '2026-01-02'::date, '12:34'::time, '2026-01-02 12:34'::timestamp, '2026-01-02 12:34+00'::timestamptz,
    '6f8f9d3c-0000-4000-8000-000000000001'::uuid, ROW(1.50)::text COLLATE "C"), 0), 0)::text
"""

Bound = tuple[str, ...]


class TooLong(Exception):
    """A query took longer than it may: ask for less."""


async def way_of(conn: Connection) -> str:
    """Return a text that two servers have in common if they make the same digests of the same rows."""
    ((way,),) = await fetch(conn, _WAY)
    return (way or b"").decode()


def is_ordered_alike(table: ReadTable) -> bool:
    """Say whether ranges of a table's key are the same rows on every server."""
    types = {column.name: column.type_oid for column in table.columns}
    return bool(table.key) and all(types[name] in ORDERED_ALIKE for name in table.key)


async def source_parts(
    conn: Connection, publication: str | None, table: ReadTable, after: Bound, count: int, part_rows: int
) -> list[tuple[int, int, Bound]] | None:
    """
    Digest the next `count` rows after a key, `part_rows` of them at a time.

    Returns rows, sum and last key of each part, in the key's order; the last key is () where the part has fewer rows.
    None where the table was altered meanwhile. Raises TooLong, or a SourceError.
    """
    with translating():
        try:
            await conn.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            await conn.execute(f"SET LOCAL statement_timeout = '{QUERY_SECONDS_MAX}s'; SET LOCAL jit = off".encode())
            found = await fetch(conn, _source_query(table, after, count, part_rows).as_bytes(conn))
            # The lock of the query is still held: nobody can have altered the table since.
            now = await reading.describe(conn, publication, table.oid)
            await conn.execute(b"COMMIT")
        except psycopg.errors.QueryCanceled as error:
            raise TooLong from error
        finally:
            if not conn.closed and conn.pgconn.transaction_status:
                await conn.rollback()
    if now is None or now.shape != table.shape:
        return None
    return [(_number(rows), _number(total), _bound(texts)) for _, rows, total, *texts in found]


def _source_query(table: ReadTable, after: Bound, count: int, part_rows: int) -> sql.Composed:
    key = sql.SQL(", ").join(map(sql.Identifier, table.key))
    kept = [sql.SQL("{} AS {}").format(sql.Identifier(name), _k(number)) for number, name in enumerate(table.key)]
    full = sql.SQL("s.number % {} = 0").format(sql.Literal(part_rows))
    ends = [sql.SQL("max(s.{}::text) FILTER (WHERE {})").format(_k(number), full) for number in range(len(table.key))]
    beyond: sql.Composable = sql.SQL("")
    if after:
        beyond = sql.SQL(" WHERE ({}) > ({})").format(key, sql.SQL(", ").join(map(sql.Literal, after)))
    return sql.SQL(
        "SELECT (s.number - 1) / {part}, count(*), sum(s.digest), {ends} FROM ("
        "SELECT {kept}, {digest} AS digest, row_number() OVER (ORDER BY {key}) AS number "
        "FROM (SELECT * FROM {only}{table}{beyond} ORDER BY {key} LIMIT {count}) t) s GROUP BY 1 ORDER BY 1"
    ).format(
        part=sql.Literal(part_rows),
        ends=sql.SQL(", ").join(ends),
        kept=sql.SQL(", ").join(kept),
        digest=sql.SQL(_digest([(c.name, HASHED_AS_THEY_ARE.get(c.type_oid, "")) for c in table.columns])),
        key=key,
        only=sql.SQL("" if table.kind == "p" else "ONLY "),
        table=sql.Identifier(table.schema, table.name),
        beyond=beyond,
        count=sql.Literal(count),
    )


async def target_parts(
    conn: Connection, rows: TargetRows, key: Sequence[str], bounds: Sequence[Bound]
) -> list[tuple[int, int]]:
    """
    Digest what lies between each two neighbours of `bounds`: the number of rows, and the sum.

    The first bound may be () for everything up to the second, and the last for everything above the one before.
    Raises TooLong, or psycopg's errors.
    """
    between = list(pairwise(bounds))
    closed = [(low, high) for low, high in between if low and high]
    found: list[tuple[int, int]] = []
    try:
        if not between[0][0]:
            found += await _target_part(conn, rows, key, *between[0])
        if closed:
            found += await _target_closed(conn, rows, key, closed)
        if between[-1][0] and not between[-1][1]:
            found += await _target_part(conn, rows, key, *between[-1])
    except psycopg.errors.QueryCanceled as error:
        raise TooLong from error
    return found


async def _target_part(
    conn: Connection, rows: TargetRows, key: Sequence[str], low: Bound, high: Bound
) -> list[tuple[int, int]]:
    query = f"{_target_sum(rows)}{rows.between(key, '$', bool(low), bool(high))}"
    return [_sum(row) for row in await fetch(conn, query.encode(), [*low, *high])]


async def _target_closed(
    conn: Connection, rows: TargetRows, key: Sequence[str], parts: Sequence[tuple[Bound, Bound]]
) -> list[tuple[int, int]]:
    """Ask for all parts in one query, each by a scan of the index."""
    width = len(key)
    arrays = ", ".join(f"${number + 1}::text[]" for number in range(2 * width))
    names = ", ".join(f"{letter}{number}" for letter in "lh" for number in range(width))
    query = (
        f"SELECT d.* FROM unnest({arrays}) WITH ORDINALITY AS b ({names}, place) "
        f"CROSS JOIN LATERAL ({_target_sum(rows)}{rows.between(key, 'b', True, True)}) d ORDER BY b.place"
    )
    lows, highs = zip(*parts, strict=True)
    values = [[bound[number] for bound in side] for side in (lows, highs) for number in range(width)]
    return [_sum(row) for row in await fetch(conn, query.encode(), values)]


def _target_sum(rows: TargetRows) -> str:
    assert rows.target is not None
    digest = _digest([(name, rows.target.columns[name].type) for name in rows.columns])
    return f"SELECT count(*), sum({digest}) FROM {rows.target.quoted} t"


def _digest(columns: Sequence[tuple[str, str]]) -> str:
    """Write the digest of a row of `t`, of columns and the names of their types."""
    cells, printed = [], []
    for name, kind in columns:
        if kind not in HASHED_AS_THEY_ARE.values():
            printed.append(f"t.{quote(name)}")
        elif kind in AS_THEY_COME:
            cells.append(f't.{quote(name)} COLLATE "C"')
        else:
            cells.append(f"t.{quote(name)}")
    if printed:
        cells.append(f'ROW({", ".join(printed)})::text COLLATE "C"')
    return f"hashint8extended(hash_record_extended(ROW({', '.join(cells)}), 0), 0)"


def _k(number: int) -> sql.Identifier:
    return sql.Identifier(f"k{number}")


def _sum(row: Sequence[bytes | None]) -> tuple[int, int]:
    return _number(row[0]), _number(row[1])


def _number(text: bytes | None) -> int:
    # The sum of no rows is NULL.
    return int(text or b"0")


def _bound(texts: Sequence[bytes | None]) -> Bound:
    return tuple(text.decode() for text in texts if text is not None)
