"""
The body of a webhook: `{"type": …, "timestamp": …, "data": …}`, where `data` is the outside form of the change. Pure.

`timestamp` is when the change was committed; when it was sent is in the header `webhook-timestamp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import Formatter

import msgspec

from backend_watcher.errors import ConfigError, SinkRejected
from backend_watcher.events.change import Change
from backend_watcher.events.envelope import change_to_json, value_to_json
from backend_watcher.events.row import Row
from backend_watcher.events.table import Table

PLACES = ("schema", "table", "operation")

_text = msgspec.json.Encoder().encode


class Body:
    """
    Writes bodies. `columns` chooses columns, `exclude` leaves some out; a primary key is always sent.

    Raises ConfigError for a type with other places in it than `{schema}`, `{table}` and `{operation}`.
    """

    def __init__(self, kind: str, columns: Sequence[str] | None, exclude: Sequence[str]) -> None:
        faults = _kind_faults(kind)
        for name, chosen in (("columns", columns), ("exclude", exclude)):
            if isinstance(chosen, str) or (name == "columns" and chosen is not None and not chosen):
                faults.append(f"{name}: a list of column names is wanted, such as ['id', 'name']")
        if columns is not None and exclude:
            faults.append("exclude: there are columns too; right would be one of the two")
        if faults:
            raise ConfigError(faults)
        self._kind = kind
        self._columns = None if columns is None else tuple(columns)
        self._exclude = tuple(exclude)
        self._table: Table | None = None
        self._names: tuple[str, ...] = ()

    def write(self, change: Change) -> bytes:
        """Write the body for a change. Raises SinkRejected where that cannot be done."""
        table = change.table
        kind = self._kind.format(schema=table.schema, table=table.name, operation=change.operation.value)
        try:
            if self._columns is not None or self._exclude:
                change = self._cut(change)
            moment = value_to_json(change.commit_time)
            parts = (b'{"type":', _text(kind), b',"timestamp":', moment, b',"data":', change_to_json(change), b"}")
        except ValueError as error:
            reason = f"{table.full_name}: a value cannot be written as JSON ({type(error).__name__})"
            raise SinkRejected(reason) from error
        return b"".join(parts)

    def _cut(self, change: Change) -> Change:
        if change.table is not self._table:
            self._names = self._chosen(change.table)
            self._table = change.table
        new, old = change.new, change.old
        return change.replace(
            new=None if new is None else self._part(new),
            old=None if old is None else self._part(old),
        )

    def _part(self, row: Row) -> dict[str, object]:
        return {name: row[name] for name in self._names}

    def _chosen(self, table: Table) -> tuple[str, ...]:
        option = "columns" if self._columns is not None else "exclude"
        wanted = self._columns if self._columns is not None else self._exclude
        for name in wanted:
            if name not in table.index_of:
                raise SinkRejected(
                    f"column_missing: {table.full_name} has no column {name!r}",
                    remedy=f"Correct {option}=[…] of the sink.",
                )
        keeps = self._columns is not None
        chosen = {*wanted, *table.primary_key} if keeps else set(table.index_of).difference(wanted)
        hidden = [name for name in table.primary_key if name not in chosen]
        if hidden:
            raise SinkRejected(
                f"key_excluded: {table.full_name}.{hidden[0]} is of the primary key, which is always sent",
                remedy="Take it out of exclude=[…] of the sink.",
            )
        return tuple(name for name in table.index_of if name in chosen)


def _kind_faults(kind: str) -> list[str]:
    like = "right would be, for example, '{table}.{operation}'"
    try:
        places = [place for _, place, _, _ in Formatter().parse(kind) if place is not None]
        other = [place for place in places if place not in PLACES]
        if other:
            return [f"type: {{{other[0]}}} is none of {', '.join(PLACES)}; {like}"]
        if not kind.format(schema="s", table="t", operation="o"):
            return [f"type: it is empty; {like}"]
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        return [f"type: {error}; {like}"]
    return []
