"""
Did the publication cover every watched table all the time? Compared from one look to the next. Pure.

A row that is committed while its table is not published is never sent, and no message says so. So it is not
enough that the publication is whole now: an entry that was taken out and put back has another OID, and a
publication that was altered and altered back has another version of its row. What cannot be explained stops.
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

    def followed(self, publication: PublicationSeen, tables: Iterable[TableSeen]) -> Coverage:
        """Go on from what is there now. A table that is gone stays as it was: it may be made again."""
        found = {table.full_name: table for table in tables}
        return Coverage(publication, {name: found.get(name, table) for name, table in self.tables.items()})

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
    names, oids = {table.full_name: table for table in seen}, {table.oid: table for table in seen}
    for name, table in before.tables.items():
        line = _gap(name, table, names.get(name), oids.get(table.oid))
        if line is not None:
            lines.append(line)
    return lines


def _gap(name: str, was: TableSeen, now: TableSeen | None, same: TableSeen | None) -> str | None:
    if now is None:
        # Dropped by its owner: what it had was sent.
        return f"table {name} is called {same.full_name} now" if same is not None else None
    if not set(was.entries).isdisjoint(now.entries):
        return None
    if now.oid != was.oid:
        return f"table {name} was dropped and made again, and the new one was not published from the beginning"
    if not now.entries:
        return f"table {name} was taken out"
    return f"table {name} was taken out and put back, perhaps with another filter"
