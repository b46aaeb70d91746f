"""
Reads a target back: what it would print of the source's rows, and what it prints of its own.

Both come from one server under the same settings, each value as its type writes it, so they can be compared as bytes:
the source's texts go through the types of the target's columns, as they do when they are written.
"""

# ruff: noqa: S608 - names are quoted, and values are parameters

from __future__ import annotations

from collections.abc import Sequence

from backend_watcher.errors import ConfigError
from backend_watcher.events.table import Table
from backend_watcher.postgres.connect import Connection, connect
from backend_watcher.postgres.names import quote
from backend_watcher.postgres.printed import Texts, fetch
from backend_watcher.postgres.replica_session import ask
from backend_watcher.postgres.replica_tables import UNKNOWN_TYPE, Target, key_of, read_target, target_of, type_names

INTEGERS = frozenset({"smallint", "integer", "bigint"})
AS_THEY_COME = frozenset({"text", "character varying"})
"""Types that print whatever text was written into them."""

STATEMENT_SECONDS_MAX = 10

_SETTINGS = f"""
SET statement_timeout = '{STATEMENT_SECONDS_MAX}s';
SET jit = off;
-- Rows are looked up by the key's index, whatever the statistics say.
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_seqscan = off;
""".encode()


async def open_reader(dsn: str) -> Connection:
    """Connect with a session that only reads. Raises what psycopg or `connect` raises."""
    conn = await connect(dsn, purpose="replica_verify", read_only=True)
    try:
        await conn.execute(_SETTINGS)
    except BaseException:
        await conn.close()
        raise
    return conn


class TargetRows:
    """
    The questions for one shape of a source table, and its target.

    `target` is None where it is not there yet, and `order` the columns of the key in the order that the target's own
    index has. What the target computes itself is not looked at; a column that it lacks is NULL there.
    """

    def __init__(self, table: Table, target: Target | None, order: Sequence[str], fault: str, alike: bool) -> None:
        self.table = table
        self.target = target
        self.key = key_of(table)
        self.order = tuple(order)
        self.fault = fault
        self.alike = alike
        names = [column.name for column in table.columns]
        there = target.columns if target is not None else {}
        self.columns = [name for name in names if name not in there or not there[name].generated]
        self.lacking = frozenset(names) - there.keys()
        self._at = {name: number for number, name in enumerate(self.columns)}

    @property
    def key_places(self) -> list[int]:
        """Where the key stands among `columns`."""
        return [self._at[name] for name in self.key]

    def orders_as(self, key: Sequence[str]) -> bool:
        """Say that the target's own index has the rows in the source's order, where that depends on no collation."""
        if self.target is None or self.order != tuple(key):
            return False
        return not any(self.target.columns[name].type in AS_THEY_COME for name in key)

    # What should be there

    async def printed(self, conn: Connection, rows: Sequence[Sequence[str | None]]) -> list[Texts]:
        """Return what the target would print of rows of texts, those of `columns`. Raises psycopg's errors."""
        if self.target is None:
            return [[None if text is None else text.encode() for text in row] for row in rows]
        values = ", ".join(self._as_held(name, f"s.c{number}") for number, name in enumerate(self.columns))
        arrays = ", ".join(f"${number + 1}::text[]" for number in range(len(self.columns)))
        named = ", ".join(f"c{number}" for number in range(len(self.columns)))
        query = f"SELECT {values} FROM unnest({arrays}) WITH ORDINALITY AS s ({named}, place) ORDER BY s.place"
        return await fetch(conn, query.encode(), [list(column) for column in zip(*rows, strict=True)])

    def _as_held(self, name: str, text: str) -> str:
        """Read a text as it is written: by the type, then by its modifier, which may round or pad."""
        assert self.target is not None
        if name in self.lacking:
            return text
        column = self.target.columns[name]
        return f"({column.read(text)})::{column.written}" if column.written != column.type else column.read(text)

    # What is there

    async def found(self, conn: Connection, keys: Sequence[Sequence[str]]) -> list[tuple[int, Texts]]:
        """Return the rows with some keys, those of `columns`, each with the place of its key in `keys`."""
        if self.target is None or not keys:
            return []
        cells = ", ".join("NULL" if name in self.lacking else f"t.{quote(name)}" for name in self.columns)
        arrays = ", ".join(f"${number + 1}::text[]" for number in range(len(self.key)))
        named = ", ".join(f"k{number}" for number in range(len(self.key)))
        same = " AND ".join(
            f"t.{quote(name)} = {self.target.columns[name].read(f's.k{number}')}"
            for number, name in enumerate(self.key)
        )
        query = (
            f"SELECT s.place, {cells} FROM unnest({arrays}) WITH ORDINALITY AS s ({named}, place) "
            f"JOIN {self.target.quoted} t ON {same}"
        )
        rows = await fetch(conn, query.encode(), [list(column) for column in zip(*keys, strict=True)])
        return [(int(row[0] or b"0") - 1, row[1:]) for row in rows]

    async def keys_after(
        self, conn: Connection, order: Sequence[str], low: Sequence[str], high: Sequence[str], count: int
    ) -> list[Texts]:
        """
        Return some keys above `low` and up to `high`, in the order of the key's columns that is asked for.

        Both are texts in that order, () where there is no bound; so are the keys that are returned.
        """
        if self.target is None:
            return []
        columns = ", ".join(f"t.{quote(name)}" for name in order)
        where = self.between(order, "$", bool(low), bool(high))
        query = f"SELECT {columns} FROM {self.target.quoted} t{where} ORDER BY {columns} LIMIT {count}"
        return await fetch(conn, query.encode(), [*low, *high])

    def between(self, order: Sequence[str], sign: str, low: bool, high: bool) -> str:
        """Write that a row is above a key and not above another; `$` for parameters, else what stands before `l0`."""
        assert self.target is not None
        conditions = []
        for bound, compared, letter, is_there in ((0, ">", "l", low), (1, "<=", "h", high)):
            if not is_there:
                continue
            first = 1 + (len(order) if bound and low else 0)
            texts = [f"${first + n}::text" if sign == "$" else f"{sign}.{letter}{n}" for n in range(len(order))]
            read = [self.target.columns[name].read(text) for name, text in zip(order, texts, strict=True)]
            columns = ", ".join(f"t.{quote(name)}" for name in order)
            conditions.append(f"({columns}) {compared} ({', '.join(read)})")
        return f" WHERE {' AND '.join(conditions)}" if conditions else ""


async def target_rows(conn: Connection, table: Table, schema: str, *, create: bool) -> TargetRows:
    """
    Look up the table that holds the rows of `table`.

    Raises SinkGone where it is not there, or unfit: but where the sink makes what is missing, it is empty until then.
    Raises ConfigError where its rows cannot be told apart as the source's are.
    """
    key = key_of(table)
    if not key:
        raise ConfigError(
            [f"{table.full_name} has no key: which of its rows should stand at the target cannot be said"],
            remedy="Give it a primary key.",
        )
    target = await read_target(conn, schema, table.name)
    if target is None and create:
        return TargetRows(table, None, key, "there is no such table yet", False)
    if target is None or not create or all(column.name in target.columns for column in table.columns):
        target = await target_of(conn, table, schema, create=False)
    unlike, as_text = await _unlike(conn, table, target)
    for name in key:
        if name in unlike:
            raise ConfigError(
                [f"{target.full_name}.{name} is of another type than at the source, and part of the key"],
                remedy="Give it the same type: what a row is called is written differently there.",
            )
    rows = await ask(conn, "replica_orders", schema=schema, name=table.name)
    orders = [tuple(row["columns"]) for row in rows if frozenset(row["columns"] or ()) == frozenset(key)]
    order = orders[0] if orders and key not in orders else key
    made = TargetRows(table, target, order, "", not unlike | as_text)
    if unlike or as_text:
        made.fault = f"{', '.join(sorted(unlike | as_text))} of another type there"
    elif made.lacking:
        made.fault, made.alike = "columns are not there yet", False
    return made


async def _unlike(conn: Connection, table: Table, target: Target) -> tuple[set[str], set[str]]:
    """
    Return the columns that print a value otherwise than the source does, and those that print it alike, as text.

    A type that not every PostgreSQL has is taken for the same one: nothing depends on it but how fast it goes.
    """
    columns = [column for column in table.columns if column.name in target.columns]
    full = await type_names(conn, columns)
    plain = await ask(
        conn, "replica_type_names", oids=[column.type_oid for column in columns], modifiers=[-1] * len(columns)
    )
    bare = {row["number"]: row["type"] for row in plain}
    unlike, as_text = set(), set()
    for number, (column, written) in enumerate(zip(columns, full, strict=True), 1):
        there = target.columns[column.name]
        source = bare.get(number, UNKNOWN_TYPE)
        same = written == there.written or (source == there.type and there.written == there.type)
        wider = {source, there.type} <= INTEGERS or there.type in AS_THEY_COME
        if not (same or wider or written == UNKNOWN_TYPE):
            unlike.add(column.name)
        elif there.type in AS_THEY_COME and source not in AS_THEY_COME:
            as_text.add(column.name)
    return unlike, as_text
