"""
One row's insert, update, delete, truncate, or read.

Compiled where a C compiler is at hand (`change.pxd` beside this file); the same file runs uncompiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any
from zlib import crc32

from backend_watcher.events.position import Position, format_lsn
from backend_watcher.events.row import ABSENT, UNCHANGED, Row, find_cell
from backend_watcher.events.table import Table
from backend_watcher.events.transaction import Transaction


class Operation(StrEnum):
    """What happened to the row."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    TRUNCATE = "truncate"
    READ = "read"


# The hot path compares these numbers; people see the words.
INSERT, UPDATE, DELETE, TRUNCATE, READ = range(5)
_OPERATIONS = (Operation.INSERT, Operation.UPDATE, Operation.DELETE, Operation.TRUNCATE, Operation.READ)

# Two of the codes and the kinds of row.py once more: compiled, these are C numbers, and those cannot be imported.
_UPDATE = 1
_TRUNCATE = 3
KIND_UNCHANGED = 117
KIND_TEXT = 116
KIND_BINARY = 98

# No text and no text form of another type holds a zero byte.
_NULL = b"\0"


class Change:
    """
    What happened to one row (or, for a truncate, to one table).

    `new` is the row after the change (None for delete and truncate). `old` is the row before it as far as the
    server sent it: the key alone unless the table has REPLICA IDENTITY FULL, and None for an update that
    left the key alone. Values are decoded when asked for.
    """

    __slots__ = (
        "_data",
        "_new",
        "_new_at",
        "_old",
        "_old_at",
        "_old_key_only",
        "code",
        "derived",
        "ordinal",
        "replayed",
        "size_bytes",
        "table",
        "transaction",
    )

    def __init__(
        self,
        code: int,
        table: Table,
        transaction: Transaction,
        ordinal: int,
        data: bytes,
        new_at: int,
        old_at: int,
        old_key_only: bool,
    ) -> None:
        self.code = code
        self.table = table
        self.transaction = transaction
        self.ordinal = ordinal
        # Where the two TupleData begin in `data`; 0 says there is none.
        self._data = data
        self._new_at = new_at
        self._old_at = old_at
        self._old_key_only = old_key_only
        # What it took in the stream; what batches and buffers are bounded by.
        self.size_bytes = len(data)
        # Delivered once more on purpose (`watcher replay`); never set by what a source sends.
        self.replayed = False
        # Made here: of another change, whose place in the stream it shares, or of a key that no row had.
        self.derived = False
        self._new: Row | None = None
        self._old: Row | None = None

    @property
    def operation(self) -> Operation:
        """Insert, update, delete, truncate or read."""
        return _OPERATIONS[self.code]

    @property
    def new(self) -> Row | None:
        """The row after the change."""
        if self._new is None and self._new_at:
            self._new = Row(self.table, self._data, self._new_at, False)
        return self._new

    @property
    def old(self) -> Row | None:
        """The row before the change, as far as it was sent."""
        if self._old is None and self._old_at:
            self._old = Row(self.table, self._data, self._old_at, self._old_key_only)
        return self._old

    @property
    def row(self) -> Row:
        """The row this change is about: the new one, or the old one of a delete. Raises ValueError for a truncate."""
        # Not `or`: a row of a table without columns is empty, and an empty mapping is false.
        row = self.new if self.new is not None else self.old
        if row is None:
            raise ValueError(f"a {self.operation} of {self.table.full_name} has no row")
        return row

    @property
    def position(self) -> Position:
        """Where the change sits in the one order."""
        return Position(self.transaction.commit_lsn, self.ordinal)

    @property
    def context(self) -> Mapping[str, Any]:
        """What the application said of the transaction before this change; empty if nothing."""
        return self.transaction.context

    @property
    def commit_time(self) -> datetime:
        """When the source says it committed, in UTC."""
        return self.transaction.commit_time

    @property
    def event_id(self) -> str:
        """The same for this change after every restart; what a receiver removes duplicates by."""
        stream = self.transaction.stream
        lsn = format_lsn(self.transaction.commit_lsn)
        place = f"{stream.system_identifier}:{stream.slot}:{lsn}:{self.ordinal}"
        # A truncate becomes a delete of each row that is held: a receiver must not take one for the other.
        return f"{place}:{crc32(self._key_bytes_at(False)):08x}" if self.derived else place

    @property
    def key(self) -> tuple[Any, ...]:
        """The values of the primary key, in key order; empty for a table without one and for a truncate."""
        if not self._new_at and not self._old_at and self._new is None and self._old is None:
            return ()
        row, old = self.row, self.old
        return tuple(
            old[name] if row.raw(name) is UNCHANGED and old is not None else row[name]
            for name in self.table.primary_key
        )

    @property
    def key_before(self) -> tuple[Any, ...] | None:
        """The key the row had before, if this update changed it; otherwise None."""
        if not self.key_changed():
            return None
        old = self.old
        assert old is not None
        return tuple(old[name] for name in self.table.primary_key)

    def key_changed(self) -> bool:
        """Say whether this update gave the row another primary key."""
        if self.code != _UPDATE or not self._old_at:
            return False
        return self._key_bytes_at(True) != self._key_bytes_at(False)

    def lane(self, count: int) -> int:
        """Return which of `count` lanes the change's key belongs to, or -1 where it concerns more than one key."""
        if self.code == _TRUNCATE or self.key_changed():
            return -1
        return crc32(self._key_bytes_at(False)) % count

    def key_bytes(self) -> bytes:
        """
        Return bytes that are equal for changes of one row and different for others of its table.

        They are the source's, whatever a transform made of the row: order is kept by the row that changed.
        """
        return self._key_bytes_at(False)

    def identities(self) -> tuple[tuple[str, bytes], ...]:
        """
        Return what names the rows this change is about: table and `key_bytes`, twice where it changed the key.

        A row of a table without any key has nothing in common with another: its place in the stream names it.
        """
        name = self.table.full_name
        if not self._new_at and not self._old_at:
            return ()
        key = self._key_bytes_at(False)
        if not key and not self.table.identity_indexes:
            return ((name, b"\0%d:%d" % (self.transaction.commit_lsn, self.ordinal)),)
        if self.key_changed():
            return ((name, self._key_bytes_at(True)), (name, key))
        return ((name, key),)

    def _key_bytes_at(self, before: bool) -> bytes:
        at = self._old_at if before or not self._new_at else self._new_at
        if not at:
            return b""
        data = self._data
        parts = []
        for index in self.table.identity_indexes:
            place = find_cell(data, at, index)
            kind = data[place]
            if kind == KIND_UNCHANGED and self._old_at:
                place = find_cell(data, self._old_at, index)
                kind = data[place]
            if kind == KIND_TEXT or kind == KIND_BINARY:  # noqa: SIM109 one comparison each once compiled
                size = (data[place + 1] << 24) | (data[place + 2] << 16) | (data[place + 3] << 8) | data[place + 4]
                parts.append(data[place + 5 : place + 5 + size])
            else:
                parts.append(_NULL)
        if len(parts) == 1:
            return parts[0]
        return b"".join([b"%d:%b" % (len(part), part) for part in parts])

    def changed_columns(self) -> frozenset[str] | None:
        """
        Return the names of the columns an update gave another value, or None where that cannot be known.

        It can be known only with REPLICA IDENTITY FULL, when the server sends the whole old row.
        """
        new, old = self.new, self.old
        if self.code != _UPDATE or new is None or old is None or self._old_key_only:
            return None
        return frozenset(name for name in new if new.has_value(name) and new.differs(old, name))

    def replace(self, *, new: Mapping[str, Any] | None = None, old: Mapping[str, Any] | None = None) -> Change:
        """Return the same change with other row values, as a transform does to rename or mask."""
        copy = Change(
            self.code,
            self.table,
            self.transaction,
            self.ordinal,
            self._data,
            self._new_at,
            self._old_at,
            self._old_key_only,
        )
        copy._hold(
            self.size_bytes,
            self.new if new is None else Row.of(self.table, new),
            self.old if old is None else Row.of(self.table, old),
            self.replayed,
            self.derived,
        )
        return copy

    def _hold(self, size_bytes: int, new: Row | None, old: Row | None, replayed: bool, derived: bool) -> None:
        # Compiled, private fields can be set through `self` only.
        self.size_bytes = size_bytes
        self.replayed = replayed
        self.derived = derived
        self._new = new
        self._old = old

    def as_replayed(self) -> Change:
        """Return the same change, marked as delivered once more on purpose."""
        copy = self.replace()
        copy._hold(self.size_bytes, self._new, self._old, True, self.derived)
        return copy

    def as_delete(self, transaction: Transaction, ordinal: int) -> Change:
        """
        Return a delete of this change's row at another place: what a truncate means for one key.

        Raises ValueError where this change has no row itself.
        """
        tuple_at = self._new_at or self._old_at
        if not tuple_at:
            raise ValueError(f"a {self.operation} of {self.table.full_name} has no row to delete")
        key_only = self._old_key_only and not self._new_at
        made = Change(DELETE, self.table, transaction, ordinal, self._data, 0, tuple_at, key_only)
        made._hold(self.size_bytes, None, None, False, True)
        return made

    def as_derived(self) -> Change:
        """Return the same change, marked as `as_delete` marks what it makes."""
        copy = self.replace()
        copy._hold(self.size_bytes, self._new, self._old, self.replayed, True)
        return copy

    def of_one_row(self, before: bool) -> Change:
        """
        Return what an update of the key means for one of its rows: a delete of the one it was, an update of the other.

        Raises ValueError where this is no update of a key.
        """
        if not self.key_changed():
            raise ValueError(f"a {self.operation} of {self.table.full_name} is about one row")
        if before:
            return Change(
                DELETE, self.table, self.transaction, self.ordinal, self._data, 0, self._old_at, self._old_key_only
            )
        return Change(self.code, self.table, self.transaction, self.ordinal, self._data, self._new_at, 0, False)

    def tuples(self) -> tuple[bytes, bytes, bool]:
        """
        Return the source's bytes of the new and of the old row (TupleData, empty where there is none).

        The third value says whether the old row holds the key only. A transform's values are not in them.
        """
        return self._tuple_at(self._new_at), self._tuple_at(self._old_at), bool(self._old_key_only)

    def _tuple_at(self, at: int) -> bytes:
        return self._data[at : find_cell(self._data, at, len(self.table.columns))] if at else b""

    def __repr__(self) -> str:
        return f"Change({self.operation.value} {self.table.full_name} at {self.position})"


__all__ = ["ABSENT", "DELETE", "INSERT", "READ", "TRUNCATE", "UNCHANGED", "UPDATE", "Change", "Operation"]
