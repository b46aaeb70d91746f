"""The source's tables as text, held against the mirror's: how many are equal, and how the others differ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.pq import ExecStatus

from .mirror import Image, Mirror, Seen, image_of, kept

SETTINGS = {
    "DateStyle": "ISO,YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "search_path": "pg_catalog",
    "quote_all_identifiers": "off",
    "array_nulls": "on",
}
"""Written down once more: the judge shares no session with what it judges."""

TABLES = """
SELECT c.oid::bigint, n.nspname, c.relname, format('%I.%I', n.nspname, c.relname),
       coalesce((SELECT r.relnamespace::regnamespace || '.' || r.relname FROM pg_class r
                 WHERE r.oid = pg_partition_root(c.oid)), n.nspname || '.' || c.relname),
       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
             AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'watcher')
ORDER BY c.oid
"""
UNSUPPORTED = """
SELECT CASE c.relkind WHEN 'r' THEN 'unlogged tables' WHEN 'm' THEN 'materialized views' WHEN 'f' THEN 'foreign tables'
                      WHEN 'S' THEN 'sequences' END, count(*)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (c.relkind IN ('m', 'f', 'S') OR c.relkind = 'r' AND c.relpersistence = 'u') AND n.nspname NOT LIKE 'pg\\_%'
GROUP BY 1 UNION ALL SELECT 'large objects', count(*) FROM pg_largeobject_metadata ORDER BY 1
"""


@dataclass(frozen=True)
class SourceTable:
    """A table of the source; `told_as` is the name that a schema change of it has: the root's, for a partition."""

    oid: int
    name: str
    quoted: str
    told_as: str
    columns: Sequence[str]


@dataclass(frozen=True)
class Difference:
    """A table that is not equal: rows the mirror lacks or has too much, and the columns only one side has."""

    name: str
    told_as: str
    missing: int
    extra: int
    columns: str

    @property
    def words(self) -> str:
        """Say it in a line."""
        return f"{self.missing} rows missing, {self.extra} too many{f'; {self.columns}' if self.columns else ''}"


def source_tables(connection: psycopg.Connection[Any]) -> list[SourceTable]:
    """Return every plain table, partitions among them."""
    for name, value in SETTINGS.items():
        connection.execute("SELECT set_config(%s, %s, false)", [name, value])
    rows = connection.execute(TABLES).fetchall()
    return [
        SourceTable(oid, f"{schema}.{name}", quoted, root, columns) for oid, schema, name, quoted, root, columns in rows
    ]


def unsupported(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """Count what logical replication never sends."""
    return {what: count for what, count in connection.execute(UNSUPPORTED).fetchall() if count}


def differences(
    connection: psycopg.Connection[Any], mirror: Mirror, left_out: Collection[str] = ()
) -> Iterator[tuple[Difference | None, int]]:
    """Compare table by table: None for an equal one, and how many rows the source has in it."""
    seen = mirror.tables()
    for table in source_tables(connection):
        if table.name not in left_out:
            rows = rows_of(connection, table)
            yield difference(table, rows, seen.get(table.oid)), rows.total()


def difference(table: SourceTable, rows: Counter[Image], seen: Seen | None) -> Difference | None:
    """Say how a table differs. A table that the mirror never heard of is equal when it has no row."""
    had = seen.rows if seen is not None else {}
    # What the source no longer has of a row is nobody's loss: a dropped column.
    mirrored: Counter[Image] = Counter()
    for image, count in had.items():
        mirrored[kept(image, table.columns)] += count
    missing, extra = rows - mirrored, mirrored - rows
    if not missing and not extra:
        return None
    return Difference(table.name, table.told_as, missing.total(), extra.total(), _columns(missing, extra))


def rows_of(connection: psycopg.Connection[Any], table: SourceTable) -> Counter[Image]:
    """Read a table as text, without its children."""
    names = ", ".join('"' + name.replace('"', '""') + '"' for name in table.columns)
    result = connection.pgconn.exec_(f"SELECT {names} FROM ONLY {table.quoted}".encode())
    if result.status != ExecStatus.TUPLES_OK:
        raise RuntimeError(f"{table.name}: {result.error_message.decode(errors='replace')}")
    rows: Counter[Image] = Counter()
    for row in range(result.ntuples):
        rows[image_of((name, result.get_value(row, at)) for at, name in enumerate(table.columns))] += 1
    return rows


def _columns(missing: Mapping[Image, int], extra: Mapping[Image, int]) -> str:
    def names(images: Mapping[Image, int]) -> set[str]:
        return {name for image in images for name in json.loads(image)}

    only = {"in the source only": names(missing) - names(extra), "in the mirror only": names(extra) - names(missing)}
    if not missing or not extra:
        return ""
    return ", ".join(f"{', '.join(sorted(found))} {where}" for where, found in only.items() if found)
