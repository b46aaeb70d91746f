"""
Did the publication cover every watched table all the time? Compared from one look to the next. Pure.

A row that is committed while its table is not published is never sent, and no message says so. So it is not
enough that the publication is whole now: an entry that was taken out and put back has another OID, and a
publication that was altered and altered back has another version of its row. What cannot be explained stops.

What happens to a table itself is not the publication's doing, and stops nothing: dropped, renamed, or made again as
another table, it is told of by `schema.py`, and made again it is published again by `watch.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace

from backend_watcher.postgres.surroundings import PublicationSeen, TableSeen


@dataclass(frozen=True, slots=True)
class Coverage:
    """A publication and the watched tables, by the names they are watched by."""

    publication: PublicationSeen
    tables: Mapping[str, TableSeen]

    @classmethod
    def of(cls, publication: PublicationSeen, tables: Iterable[TableSeen], names: Iterable[str]) -> Coverage:
        """Take from what was seen the tables that are watched."""
        found = {table.full_name: table for table in tables}
        return cls(publication, {name: found[name] for name in names if name in found})

    @property
    def oids(self) -> list[int]:
        """The OIDs of the tables."""
        return [table.oid for table in self.tables.values()]

    def to_note(self) -> str:
        """Write it as a note of the journal."""
        tables = {name: asdict(table) for name, table in self.tables.items()}
        return json.dumps({"publication": asdict(self.publication), "tables": tables}, sort_keys=True)

    @classmethod
    def from_note(cls, note: str | None) -> Coverage | None:
        """Read a note; None where there is none, or one of another time."""
        try:
            read = json.loads(note or "")
            seen = read["publication"]
            publication = PublicationSeen(**seen | {"operations": tuple(seen["operations"])})
            tables = {
                name: TableSeen(**table | {"entries": tuple(table["entries"])})
                for name, table in read["tables"].items()
            }
        except (ValueError, TypeError, KeyError):
            return None
        return cls(publication, tables)

    def followed(self, publication: PublicationSeen, tables: Iterable[TableSeen], names: Iterable[str]) -> Coverage:
        """Go on from what is there now. A table that is gone stays as it was: it may be made again."""
        found = {table.full_name: table for table in tables}
        now = {name: found.get(name, self.tables.get(name)) for name in names}
        return Coverage(publication, {name: table for name, table in now.items() if table is not None})

    def unpublished(self) -> list[str]:
        """Return the tables that were made again, and are not published yet."""
        return [name for name, table in self.tables.items() if not table.entries]

    def only(self, names: Iterable[str]) -> Coverage:
        """Leave out the tables that nobody watches any more."""
        return replace(self, tables={name: self.tables[name] for name in names if name in self.tables})


def gaps(before: Coverage, publication: PublicationSeen | None, tables: Iterable[TableSeen]) -> list[str]:
    """Say in a line each what may have kept rows from being sent since `before`; [] where nothing may have."""
    if publication is None:
        return ["it was dropped"]
    was = before.publication
    if publication.oid != was.oid:
        return ["it was dropped and made again"]
    lines = []
    if missing := [operation for operation in was.operations if operation not in publication.operations]:
        lines.append(f"it publishes no {', '.join(missing)} any more")
    if publication.via_root != was.via_root:
        lines.append("publish_via_partition_root was changed: rows come under other names")
    if publication.touched != was.touched and publication == replace(was, touched=publication.touched):
        lines.append("it was altered and altered back")
    seen = list(tables)
    names = {table.full_name: table for table in seen}
    for name, table in before.tables.items():
        line = _gap(name, table, names.get(name))
        if line is not None:
            lines.append(line)
    return lines


def _gap(name: str, was: TableSeen, now: TableSeen | None) -> str | None:
    if now is None or now.oid != was.oid or not was.entries:
        # Gone, or another table, or one that was made again and not published until now: what it had was sent.
        return None
    if not set(was.entries).isdisjoint(now.entries):
        return None
    if not now.entries:
        return f"table {name} was taken out"
    return f"table {name} was taken out and put back, perhaps with another filter"
