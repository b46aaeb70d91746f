"""
One row, still in the bytes the server sent, read column by column when asked.

A row *is* its TupleData (manual, chapter "Logical Replication Message Formats"): a 16-bit count, then for
each column a kind (`n` NULL, `u` unchanged, `t` text, `b` binary) and, for the last two, a 32-bit length and
the value. Nothing is decoded and no object is made per column until somebody asks for it.

Compiled where a C compiler is at hand (`row.pxd` beside this file); the same file runs uncompiled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final, NoReturn

from backend_watcher.events.table import Table

KIND_NULL = 110  # n
KIND_UNCHANGED = 117  # u
KIND_TEXT = 116  # t
KIND_BINARY = 98  # b


class Missing(Enum):
    """A column that has no value here. Neither is NULL, and neither may be taken for it."""

    UNCHANGED = "unchanged"
    """A large value (TOAST) the statement did not touch: the server did not send it again."""
    ABSENT = "absent"
    """The server does not send it: an old row that holds the key only."""

    def __bool__(self) -> NoReturn:
        raise TypeError(f"the column is {self.value}: it has no value here; ask with row.has_value(name)")

    def __repr__(self) -> str:
        return self.name


UNCHANGED: Final = Missing.UNCHANGED
ABSENT: Final = Missing.ABSENT


def find_cell(data: bytes, start: int, index: int) -> int:
    """Return where column `index` of the TupleData at `start` begins. Its layout was checked when it was captured."""
    at = start + 2
    for _ in range(index):
        kind = data[at]
        if kind == KIND_TEXT or kind == KIND_BINARY:  # noqa: SIM109 one comparison each once compiled
            at += 5 + ((data[at + 1] << 24) | (data[at + 2] << 16) | (data[at + 3] << 8) | data[at + 4])
        else:
            at += 1
    return at


class Row:  # noqa: PLW1641 equal by value, and so not hashable
    """
    A mapping from column name to value, in the table's column order.

    A value is decoded by the column's type at first access: None for NULL, `UNCHANGED` or `ABSENT` for a
    column without a value, and otherwise what `docs/values.md` lists. Raises KeyError for an unknown column.
    """

    __slots__ = ("_data", "_key_only", "_start", "_values", "table")

    def __init__(self, table: Table, data: bytes, start: int, key_only: bool) -> None:
        self.table = table
        self._data = data
        self._start = start
        self._key_only = key_only
        self._values: dict[str, Any] | None = None

    @classmethod
    def of(cls, table: Table, values: Mapping[str, Any]) -> Row:
        """Make a row from Python values, as a transform does; a column not named is ABSENT."""
        row = cls(table, b"", 0, False)
        row._hold({column.name: values.get(column.name, ABSENT) for column in table.columns})
        return row

    def _hold(self, values: dict[str, Any]) -> None:
        # Compiled, private fields can be set through `self` only.
        self._values = values

    def _cell(self, index: int) -> Any:
        """Return column `index` as bytes, None, UNCHANGED or ABSENT."""
        data = self._data
        at = find_cell(data, self._start, index)
        kind = data[at]
        if kind == KIND_TEXT or kind == KIND_BINARY:  # noqa: SIM109
            size = (data[at + 1] << 24) | (data[at + 2] << 16) | (data[at + 3] << 8) | data[at + 4]
            return data[at + 5 : at + 5 + size]
        if kind == KIND_UNCHANGED:
            return UNCHANGED
        # In a key-only row `n` means "not sent", never NULL.
        if self._key_only and not self.table.in_key(index):
            return ABSENT
        return None

    def _load(self, index: int) -> Any:
        cell = self._cell(index)
        if cell is None or cell is UNCHANGED or cell is ABSENT:
            return cell
        column = self.table.columns[index]
        if self._data[find_cell(self._data, self._start, index)] == KIND_BINARY:
            return column.load_binary(cell)
        return column.load_text(cell)

    def _index(self, name: str) -> int:
        index = self.table.index_of.get(name)
        if index is None:
            raise KeyError(f"{self.table.full_name} has no column {name!r}")
        return index

    def __getitem__(self, name: str) -> Any:
        if self._values is not None:
            self._index(name)
            return self._values[name]
        return self._load(self._index(name))

    def get(self, name: str, default: Any = None) -> Any:
        """Return the column's value, or `default` if the table has no such column."""
        return self[name] if name in self.table.index_of else default

    def raw(self, name: str) -> Any:
        """Return the column's bytes as the server sent them, or None, UNCHANGED, ABSENT."""
        if self._values is not None:
            return self._values[name]
        return self._cell(self._index(name))

    def raw_at(self, index: int) -> Any:
        """Do the same for the column at `index` in table order. Raises IndexError where there is none."""
        if not 0 <= index < len(self.table.columns):
            raise IndexError(f"{self.table.full_name} has no column number {index}")
        if self._values is not None:
            return self._values[self.table.columns[index].name]
        return self._cell(index)

    def is_binary_at(self, index: int) -> bool:
        """Say whether the column at `index` was sent in the binary format of its type."""
        return self._values is None and self._data[find_cell(self._data, self._start, index)] == KIND_BINARY

    def has_value(self, name: str) -> bool:
        """Say whether the column holds a value or NULL, rather than UNCHANGED or ABSENT."""
        value = self.raw(name)
        return value is not UNCHANGED and value is not ABSENT

    def differs(self, old: Row, name: str) -> bool:
        """Say whether the column has another value than in `old`; bytes are compared while both rows have them."""
        if self._values is None and old._values is None:
            return bool(self.raw(name) != old.raw(name))
        return bool(self[name] != old[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.table.index_of)

    def __len__(self) -> int:
        return len(self.table.columns)

    def __contains__(self, name: object) -> bool:
        return name in self.table.index_of

    def keys(self) -> list[str]:
        """Return the column names in table order."""
        return list(self.table.index_of)

    def values(self) -> list[Any]:
        """Return all values in table order."""
        return list(self.to_dict().values())

    def items(self) -> list[tuple[str, Any]]:
        """Return all (name, value) pairs in table order."""
        return list(self.to_dict().items())

    def to_dict(self) -> dict[str, Any]:
        """Decode every column in one pass; UNCHANGED and ABSENT columns are among the values."""
        if self._values is not None:
            return dict(self._values)
        result: dict[str, Any] = {}
        data = self._data
        at = self._start + 2
        for index, column in enumerate(self.table.columns):
            kind = data[at]
            if kind == KIND_TEXT or kind == KIND_BINARY:  # noqa: SIM109
                size = (data[at + 1] << 24) | (data[at + 2] << 16) | (data[at + 3] << 8) | data[at + 4]
                load = column.load_text if kind == KIND_TEXT else column.load_binary
                result[column.name] = load(data[at + 5 : at + 5 + size])
                at += 5 + size
                continue
            at += 1
            if kind == KIND_UNCHANGED:
                result[column.name] = UNCHANGED
            elif self._key_only and not self.table.in_key(index):
                result[column.name] = ABSENT
            else:
                result[column.name] = None
        return result

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Row):
            return self.to_dict() == other.to_dict()
        if isinstance(other, Mapping):
            return self.to_dict() == dict(other)
        return NotImplemented

    def __repr__(self) -> str:
        # Never values: rows end up in logs.
        return f"Row({self.table.full_name!r}, {len(self.table.columns)} columns)"


Mapping.register(Row)
