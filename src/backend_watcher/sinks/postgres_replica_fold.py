"""
Many changes of one table become one step a key. Pure.

Of each key the last state counts: a whole row, a row that lacks what was never sent, or none. Values that an update
left alone (UNCHANGED) come from the old row where the server sent all of it, else from what the same batch knows of the
row; else they stay as they are at the target. An update of the key is a delete and a row; where it lacks values that
only the row at the target has, that row has to be read first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backend_watcher.errors import SinkRejected
from backend_watcher.events.change import DELETE, INSERT, TRUNCATE, UPDATE, Change
from backend_watcher.events.fields import Cell, cells_of, fields_of, join_cells, split_fields
from backend_watcher.events.row import Missing, Row
from backend_watcher.events.table import Table

Entry = bytes | list[Cell]
"""A whole row as fields, or one that lacks values as cells."""


class NeedsRow(Exception):
    """What is folded so far has to be written, and the row with the old key read: `gone` are its fields."""

    def __init__(self, gone: bytes) -> None:
        super().__init__()
        self.gone = gone


class Folded:
    """What becomes of the keys of one table: `rows` by key, and the keys that are gone with their fields."""

    __slots__ = ("gone", "inserts", "rows", "updates")

    def __init__(self) -> None:
        # What the rows came by: where it is only one of the two, there is a faster statement.
        self.inserts = False
        self.updates = False
        self.rows: dict[bytes, Entry] = {}
        self.gone: dict[bytes, bytes] = {}

    def __bool__(self) -> bool:
        return bool(self.rows or self.gone)

    def extend(self, changes: Sequence[Change], begin: int = 0) -> int:
        """Take inserts from `begin` on, as many as follow each other; return the place after them."""
        rows = self.rows
        place = begin
        for place in range(begin, len(changes)):
            change = changes[place]
            row = change.new
            if change.code != INSERT or row is None:
                return place
            fields = fields_of(row)
            if fields is None:
                return place
            rows[change.key_bytes()] = fields
            self.inserts = True
        return place + 1 if begin < len(changes) else begin

    def add(self, change: Change, present: Sequence[Cell] | None = None) -> None:
        """
        Take one more change; `present` is the row at the target, if it was read for it, empty if there is none.

        Raises NeedsRow, having taken nothing; SinkRejected for what cannot be written.
        """
        if change.code == DELETE:
            key = change.key_bytes()
            self.rows.pop(key, None)
            self.gone[key] = whole(change.old, change.table)
            return
        if change.code == UPDATE and change.key_changed():
            self._move(change, present)
            return
        if change.code == UPDATE:
            self.updates = True
        else:
            self.inserts = True
        row = change.new
        assert row is not None
        fields = fields_of(row)
        key = change.key_bytes()
        if fields is None:
            self.rows[key] = _settled(self._filled(change, key, None))
        else:
            self.rows[key] = fields

    def _move(self, change: Change, present: Sequence[Cell] | None) -> None:
        before, after = (key for _, key in change.identities())
        cells = self._filled(change, before, present)
        old = change.old
        assert old is not None
        gone = whole(old, change.table)
        if lacks(cells):
            if present is not None:
                raise _binary_or_absent(change.table)
            raise NeedsRow(gone)
        self.rows.pop(before, None)
        self.gone[before] = gone
        self.inserts = self.updates = True
        self.rows[after] = join_cells(cells)

    def _filled(self, change: Change, key: bytes, present: Sequence[Cell] | None) -> list[Cell]:
        """Return the new row's cells, with what is known from elsewhere in the place of what was not sent."""
        new, old = change.new, change.old
        assert new is not None
        cells = _cells(new)
        if old is not None:
            _fill(cells, _cells(old))
        if lacks(cells):
            before = self.rows.get(key, present)
            if before:
                _fill(cells, split_fields(before) if isinstance(before, bytes) else before)
        return cells

    @property
    def expects(self) -> bool | None:
        """Say whether the whole rows should be at the target already; None where some should and some not."""
        return None if self.inserts and self.updates else self.updates

    def steps(self) -> tuple[list[bytes], list[bytes], dict[frozenset[int], list[Sequence[Cell]]]]:
        """Return whole rows, keys that are gone and not there again, and rows by the columns that they lack."""
        entire: list[bytes] = []
        parts: dict[frozenset[int], list[Sequence[Cell]]] = {}
        for entry in self.rows.values():
            if isinstance(entry, bytes):
                entire.append(entry)
            else:
                lacking = frozenset(number for number, cell in enumerate(entry) if isinstance(cell, Missing))
                parts.setdefault(lacking, []).append(entry)
        # What was deleted and is there again as a whole is written over.
        gone = [fields for key, fields in self.gone.items() if key not in self.rows]
        return entire, gone, parts


def runs(changes: Iterable[Change]) -> list[list[Change]]:
    """
    Divide changes by table, each in order; a truncate stands alone, and so do rows of another shape of the table.

    Tables come in the order of their first change.
    """
    tables: dict[str, list[list[Change]]] = {}
    table: Table | None = None
    last_run: list[Change] = []
    for change in changes:
        if change.table is table and change.code != TRUNCATE:
            last_run.append(change)
            continue
        of_table = tables.setdefault(change.table.full_name, [])
        last = of_table[-1] if of_table else None
        if last is None or TRUNCATE in (change.code, last[-1].code) or last[-1].table is not change.table:
            last = [change]
            of_table.append(last)
        else:
            last.append(change)
        table, last_run = (None if change.code == TRUNCATE else change.table), last
    return [run for of_table in tables.values() for run in of_table]


def whole(row: Row | None, table: Table) -> bytes:
    """Return a row's fields, those that were not sent as NULL. Raises SinkRejected for binary values."""
    if row is None:
        raise SinkRejected(
            f"{table.full_name}: the old row was not sent",
            remedy=f"ALTER TABLE {table.full_name} REPLICA IDENTITY FULL, or give it a primary key.",
        )
    fields = fields_of(row)
    return join_cells(_cells(row)) if fields is None else fields


def both(change: Change) -> tuple[bytes, bytes | None]:
    """Return the fields of the old and of the new row of a table without a key."""
    old = whole(change.old, change.table)
    if change.code == DELETE:
        return old, None
    assert change.new is not None
    cells = _cells(change.new)
    _fill(cells, split_fields(old))
    return old, join_cells(cells)


def lacks(cells: Sequence[Cell]) -> bool:
    """Say that a row has a column without a value."""
    return any(isinstance(cell, Missing) for cell in cells)


def _settled(cells: list[Cell]) -> Entry:
    return cells if lacks(cells) else join_cells(cells)


def _fill(cells: list[Cell], known: Sequence[Cell]) -> None:
    for number, cell in enumerate(cells):
        if isinstance(cell, Missing):
            cells[number] = known[number]


def _cells(row: Row) -> list[Cell]:
    try:
        return cells_of(row)
    except ValueError as error:
        raise SinkRejected(str(error), remedy="Let the source send text.") from error


def _binary_or_absent(table: Table) -> SinkRejected:
    return SinkRejected(
        f"toast_unavailable: a value of {table.full_name} was not sent, because the update left it alone",
        remedy=f"ALTER TABLE {table.full_name} REPLICA IDENTITY FULL.",
    )
