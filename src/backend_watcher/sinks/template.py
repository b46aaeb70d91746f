"""A key such as `product:{id}`: literal text with columns in it, made from a row's bytes. Pure."""

from __future__ import annotations

import re
from string import Formatter

from backend_watcher.errors import ConfigError, SinkRejected
from backend_watcher.events.envelope import RowWriter
from backend_watcher.events.row import Missing, Row
from backend_watcher.events.table import Table

MARK = b"@"
"""What our own keys begin with, and no entry's key may: the position of `product:7` stands at `@product:7`."""

_EXACT = dict.fromkeys((20, 21, 23, 26), rb"-?\d+") | {2950: rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"}


class KeyTemplate:
    """
    `{column}` stands for a column's text, `{{` and `}}` for braces. Raises ConfigError for anything else.

    Two text columns in one key want a sign between them that neither contains, or two rows may share a key.
    """

    __slots__ = ("_literals", "_prefix", "_single", "_suffix", "columns", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.columns, self._literals = _parse(source)
        self._single = self.columns[0] if len(self.columns) == 1 else None
        self._prefix = self._literals[0]
        self._suffix = self._literals[-1]

    @property
    def prefix(self) -> bytes:
        """The literal text before the first column."""
        return self._prefix

    def key(self, writer: RowWriter, row: Row | None, old: Row | None = None) -> bytes:
        """Make a row's key. Raises SinkRejected where a column has no value or is NULL."""
        if row is None:
            raise SinkRejected(
                f"key_unavailable: no row was sent, and the key {self.source!r} is made from one",
                remedy=f"ALTER TABLE {writer.table.full_name} REPLICA IDENTITY FULL, or give it a primary key.",
            )
        if self._single is not None:
            text = writer.text(row, self._single, old)
            if not isinstance(text, bytes):
                raise self._no_value(row.table, self._single, text)
            key = self._prefix + text + self._suffix
        else:
            parts = [self._prefix]
            for number, column in enumerate(self.columns, 1):
                text = writer.text(row, column, old)
                if not isinstance(text, bytes):
                    raise self._no_value(row.table, column, text)
                parts += (text, self._literals[number])
            key = b"".join(parts)
        if not self._prefix and key.startswith(MARK):
            raise SinkRejected(f"key_reserved: a key of {row.table.full_name} begins with '@'")
        return key

    def glob(self) -> bytes:
        """Return the pattern for SCAN that every key matches."""
        return b"*".join(re.sub(rb"([\\*?\[\]^-])", rb"\\\1", literal) for literal in self._literals)

    def pattern(self, table: Table) -> re.Pattern[bytes]:
        """Return what a key of this table's rows matches; exact where numbers and uuids are the columns."""
        parts = [re.escape(self._prefix)]
        for number, column in enumerate(self.columns, 1):
            oid = table.columns[table.index_of[column]].type_oid if column in table.index_of else 0
            parts += (_EXACT.get(oid, rb".*"), re.escape(self._literals[number]))
        return re.compile(b"".join(parts), re.DOTALL)

    def cells(self, table: Table, key: bytes) -> dict[str, str] | None:
        """
        Return the texts that a key was made from, by column.

        None where it was not made from this template, or may have been made from others: `a:b:c` of `{x}:{y}`.
        """
        # Of all ways to divide it the greedy pattern finds the one with the longest texts first, and the lazy one the
        # one with the shortest: where these are the same there is no third.
        found = [pattern.fullmatch(key) for pattern in (self._dividing(table, b""), self._dividing(table, b"?"))]
        if found[0] is None or found[1] is None or found[0].groups() != found[1].groups():
            return None
        cells: dict[str, str] = {}
        for column, text in zip(self.columns, found[0].groups(), strict=True):
            try:
                decoded = text.decode()
            except UnicodeDecodeError:
                return None
            if cells.setdefault(column, decoded) != decoded:
                return None
        return cells

    def _dividing(self, table: Table, lazy: bytes) -> re.Pattern[bytes]:
        parts = [re.escape(self._prefix)]
        for number, column in enumerate(self.columns, 1):
            oid = table.columns[table.index_of[column]].type_oid if column in table.index_of else 0
            # Of a uuid there is one length only.
            any_length = {2950: _EXACT[2950]}.get(oid, _EXACT.get(oid, rb".*") + lazy)
            parts += (b"(", any_length, b")", re.escape(self._literals[number]))
        return re.compile(b"".join(parts), re.DOTALL)

    def _no_value(self, table: Table, column: str, state: Missing | None) -> SinkRejected:
        name = f"{table.full_name}.{column}"
        if state is None:
            return SinkRejected(f"key_null: {name} is NULL, and the key {self.source!r} is made from it")
        return SinkRejected(
            f"key_unavailable: {name} was not sent, and the key {self.source!r} is made from it",
            remedy=f"ALTER TABLE {table.full_name} REPLICA IDENTITY FULL, or make the key from the primary key.",
        )


def _parse(source: str) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    """Return the columns, and the literal texts before, between and after them."""
    like = "right would be, for example, 'product:{id}'"
    columns: list[str] = []
    literals: list[str] = [""]
    faults: list[str] = []
    try:
        for literal, column, specification, conversion in Formatter().parse(source):
            literals[-1] += literal
            if column is None:
                continue
            if not column or column.isdigit():
                faults.append(f"key {source!r}: {{{column}}} names no column; {like}")
            if specification or conversion:
                faults.append(f"key {source!r}: {column!r} has a format, and only a column's name may stand in braces")
            columns.append(column)
            literals.append("")
    except ValueError as error:
        faults.append(f"key {source!r}: {error}; {like}")
    if not columns and not faults:
        faults.append(f"key {source!r}: names no column, so all rows would share one entry; {like}")
    if source.startswith("@"):
        faults.append(f"key {source!r}: begins with '@', where the positions stand; {like}")
    if faults:
        raise ConfigError(faults)
    return tuple(columns), tuple(literal.encode() for literal in literals)
