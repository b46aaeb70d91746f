"""
What became of the watched tables from one look to the next: each difference in words, with what is to be done. Pure.

PostgreSQL sends rows, and no word of most of what is done to a table itself: a rewritten table, a default for rows that
were there, an attached partition change what a reader would see without one row being sent. So each difference says
whether the rows have to be read again. Nothing is done to any sink because of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import msgspec

from backend_watcher.postgres.names import quote
from backend_watcher.postgres.shapes import ColumnShape, RelationShape, Shapes, TypeShape

REREAD = "Read the rows of {table} again."
NAMED_MAX = 3
"""How many of several are named in a line."""
NOTHING = "Nothing, if your functions and sinks take it."


class Noticed(NamedTuple):
    """One difference; the fields are those of `contracts.SchemaChange`."""

    kind: str
    table: str
    what: str
    needs_reread: bool
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Known:
    """
    How the watched tables looked; `tables` says which OID has, or last had, each watched name.

    `all_sent`: every table that the publication sent was among them.
    """

    fingerprint: str
    tables: Mapping[str, int]
    shapes: Shapes
    all_sent: bool = False

    @classmethod
    def first(cls, fingerprint: str, seen: Shapes, names: Iterable[str]) -> Known:
        """Begin with what is there."""
        by_name = _by_name(seen)
        return cls(fingerprint, {name: by_name[name].oid for name in names if name in by_name}, seen)

    def followed(self, fingerprint: str, seen: Shapes, names: Iterable[str]) -> Known:
        """Go on from what is there now. A name that no table has any more keeps the OID it was known by."""
        now = Known.first(fingerprint, seen, names).tables
        tables = {name: now.get(name, self.tables.get(name)) for name in names}
        return Known(fingerprint, {name: oid for name, oid in tables.items() if oid is not None}, seen)

    def to_note(self) -> str:
        """Write it as a note of the journal."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_note(cls, note: str | None) -> Known | None:
        """Read a note; None where there is none, or one of another time."""
        try:
            return msgspec.json.decode(note or "", type=cls)
        except msgspec.MsgspecError:
            return None


def differences(known: Known, seen: Shapes, names: Iterable[str]) -> list[Noticed]:
    """
    Return what is different for these watched names, and for any table that the publication would harm.

    A name that was not watched before is watched from now on. Where every table that is sent was known, its rows were
    sent from the first: what was done to it before this look is told then.
    """
    by_name = _by_name(seen)
    parts = (_partitions_of(known.shapes), _partitions_of(seen))
    found: list[Noticed] = []
    for name in names:
        oid = known.tables.get(name)
        if oid is not None:  # else it is watched from now on
            pair = _Pair(name, known.shapes, seen, parts[0].get(oid, {}), parts[1].get(oid, {}))
            found += _table(pair, oid, by_name.get(name))
        elif known.all_sent and name in by_name:
            found += _first_seen(known, seen, by_name[name], parts)
    found += _types(known, seen)
    found += _harmed(known.shapes, seen)
    return found


def gap_noticed(publication: str, line: str) -> Noticed:
    """Say in the words of a difference how a publication may have left out rows."""
    reason = "rows may have been written that were not sent"
    remedy = "Make the publication whole, accept it with `watcher run --adopt-slot`, and read the tables again."
    return Noticed("publication_altered", f"publication {publication}", line, True, reason, remedy)


class _Pair(NamedTuple):
    """A watched name, everything before and now, and the partitions of its table before and now."""

    name: str
    before: Shapes
    seen: Shapes
    had: Mapping[int, RelationShape]
    has: Mapping[int, RelationShape]


def _partitions_of(shapes: Shapes) -> dict[int, dict[int, RelationShape]]:
    """Return the partitions of each table, at any depth."""
    found: dict[int, dict[int, RelationShape]] = {}
    for relation in shapes.relations.values():
        above = relation.parent
        while above is not None and above in shapes.relations:
            found.setdefault(above, {})[relation.oid] = relation
            above = shapes.relations[above].parent
    return found


def _by_name(seen: Shapes) -> dict[str, RelationShape]:
    return {relation.full_name: relation for relation in seen.relations.values()}


# The table itself


def _table(pair: _Pair, oid: int, now: RelationShape | None) -> Iterator[Noticed]:
    name, was, same = pair.name, pair.before.relations.get(oid), pair.seen.relations.get(oid)
    had_name = was is not None and was.full_name == name
    if now is None:
        if had_name:
            yield _renamed(name, same, pair.seen) if same is not None else _dropped(name)
    elif now.oid != oid:
        yield _recreated(name, oid, now, same)
    elif was is not None and not had_name:
        reason = f"what was written while it was {was.full_name} came under that name"
        yield Noticed("table_renamed", name, f"is called {name} again", True, reason, REREAD.format(table=name))
    elif was is not None:
        yield from _columns(name, was, now, _rewritten(pair, oid))
        yield from _key(name, was, now)
        yield from _partitions(pair)


def _first_seen(
    known: Known,
    seen: Shapes,
    now: RelationShape,
    parts: tuple[Mapping[int, Mapping[int, RelationShape]], Mapping[int, Mapping[int, RelationShape]]],
) -> Iterator[Noticed]:
    """Judge a table of a new name, of which rows may have been sent already."""
    name, was = now.full_name, known.shapes.relations.get(now.oid)
    pair = _Pair(name, known.shapes, seen, parts[0].get(now.oid, {}), parts[1].get(now.oid, {}))
    if was is not None and was.parent is None and now.parent is None:
        # It had another name, under which that is told.
        yield from _table(pair._replace(before=_renamed_to(known.shapes, now)), now.oid, now)
        return
    altered = [one.full_name for one in (now, *pair.has.values()) if one.altered]
    altered += [
        f"type {seen.types[used].name}" for used in sorted(_closure(now, seen.types)) if seen.types[used].altered
    ]
    if altered:
        what = f"{', '.join(altered[:NAMED_MAX])} was altered before the first look at it"
        reason = "rows that were sent before may read otherwise now"
        yield Noticed("altered_unseen", name, what, True, reason, REREAD.format(table=name))


def _renamed_to(before: Shapes, now: RelationShape) -> Shapes:
    was = replace(before.relations[now.oid], schema=now.schema, name=now.name)
    return replace(before, relations={**before.relations, now.oid: was})


def _dropped(name: str) -> Noticed:
    reason = "its changes up to then are delivered; no delete is made up for the rows it had"
    remedy = f"Take {name} out of the program, or create it again; clear what was made from its rows yourself."
    return Noticed("table_dropped", name, "was dropped", False, reason, remedy)


def _renamed(name: str, now: RelationShape, seen: Shapes) -> Noticed:
    moved = now.full_name.rpartition(".")[2] == name.rpartition(".")[2]
    kind, what = ("table_moved", "was moved to") if moved else ("table_renamed", "was renamed to")
    sent = "its changes come under that name" if _is_published(now, seen) else "its changes are not sent any more"
    remedy = f"Watch {now.full_name} instead, or give the table its name back; then read its rows again."
    return Noticed(kind, name, f"{what} {now.full_name}", True, f"{sent}: none reach who watches {name}", remedy)


def _recreated(name: str, oid: int, now: RelationShape, same: RelationShape | None) -> Noticed:
    before = "was dropped and made again" if same is None else f"is {same.full_name} now, and another has its name"
    what = f"{before} (OID {oid}, now {now.oid})"
    reason = "what is written before the new table is published is not sent; rows of the old one are not deleted"
    return Noticed("table_recreated", name, what, True, reason, f"{REREAD.format(table=name)} It is another table.")


# Columns


def _columns(name: str, was: RelationShape, now: RelationShape, rewritten: Noticed | None) -> Iterator[Noticed]:
    old, new = ({column.number: column for column in shape.columns} for shape in (was, now))
    reread = False
    for number in sorted(old.keys() | new.keys()):
        for noticed in _column(name, old.get(number), new.get(number), rewritten is not None):
            reread = reread or (noticed.needs_reread and noticed.kind != "column_renamed")
            yield noticed
    if rewritten is not None and not reread:
        yield rewritten


def _column(name: str, was: ColumnShape | None, now: ColumnShape | None, rewritten: bool) -> Iterator[Noticed]:
    again = REREAD.format(table=name)
    if was is None and now is not None:
        what = f"column {now.name} {now.type_name} was added"
        if now.filled or rewritten:
            reason = "rows that were there before may have a value in it, and none of them was sent"
            yield Noticed("column_added", name, what, True, reason, again)
        else:
            yield Noticed("column_added", name, what, False, "it is NULL in the rows that were there", NOTHING)
        return
    if was is not None and now is None:
        reason = "its values are gone; nothing is taken out of a sink because of it"
        remedy = f"Take {was.name} out of what reads it, and out of the sinks when you want to."
        yield Noticed("column_dropped", name, f"column {was.name} was dropped", False, reason, remedy)
        return
    assert was is not None
    assert now is not None
    if was.name != now.name:
        what, reason = f"column {was.name} was renamed to {now.name}", "rows sent before are stored under the old name"
        yield Noticed("column_renamed", name, what, True, reason, again)
    if (was.type_oid, was.type_name) != (now.type_oid, now.type_name):
        what = f"column {now.name} was {was.type_name} and is {now.type_name}"
        if rewritten or was.type_oid != now.type_oid:
            reason = "values of rows that were there may read otherwise now, and none of them was sent"
            yield Noticed("column_retyped", name, what, True, reason, again)
        else:
            yield Noticed("column_retyped", name, what, False, "the values that were there are the same", NOTHING)
    if was.generated != now.generated:
        what = f"column {now.name} is {'generated' if now.generated else 'not generated any more'}"
        reason = "whether its values are sent depends on that"
        yield Noticed("column_altered", name, what, True, reason, again)
    elif was.not_null != now.not_null:
        what = f"column {now.name} may {'not ' if now.not_null else ''}be NULL now"
        yield Noticed("column_altered", name, what, False, "the values that were there are the same", NOTHING)


def _rewritten(pair: _Pair, oid: int) -> Noticed | None:
    """
    Say that rows may have other values without having been sent.

    TRUNCATE, VACUUM FULL and CLUSTER make new storage too, and touch no column.
    """
    for one in (oid, *pair.has):
        was, now = pair.before.relations.get(one), pair.seen.relations[one]
        if was is not None and was.storage != now.storage and was.touched != now.touched:
            reason = "every row may have other values, and none of them was sent"
            return Noticed("rewritten", pair.name, "was rewritten", True, reason, REREAD.format(table=pair.name))
    return None


# Keys and identities


def _key(name: str, was: RelationShape, now: RelationShape) -> Iterator[Noticed]:
    if was.key != now.key:
        columns = {column.number: column.name for column in (*was.columns, *now.columns)}
        old, new = (", ".join(columns.get(number, "?") for number in shape.key) or "none" for shape in (was, now))
        reason = "rows sent before are known by the old key; order and parked keys go by the new one from now on"
        what = f"the primary key was {old} and is {new}"
        yield Noticed("key_changed", name, what, True, reason, REREAD.format(table=name))
    if was.replica_identity != now.replica_identity and now.identified:
        words = {"d": "DEFAULT", "f": "FULL", "i": "USING INDEX", "n": "NOTHING"}
        old, new = words[was.replica_identity], words[now.replica_identity]
        what = f"the replica identity was {old} and is {new}"
        reason = "no row is different; which old values come with an update or delete is"
        yield Noticed("identity_changed", name, what, False, reason, NOTHING)


def _harmed(before: Shapes, seen: Shapes) -> Iterator[Noticed]:
    """Find what the application cannot update any more because it is published: watched or not, the source is first."""
    if not seen.needs_identity:
        return
    for relation in seen.relations.values():
        was = before.relations.get(relation.oid)
        # A partitioned table itself has no rows: its partitions are judged.
        if relation.kind == "p" or relation.identified or not _is_published(relation, seen):
            continue
        if was is not None and not was.identified and before.needs_identity and _is_published(was, before):
            continue
        root = _root(relation, seen)
        reason = "nothing is lost: UPDATE and DELETE fail in the application until it has one"
        remedy = f"ALTER TABLE {relation.quoted} REPLICA IDENTITY FULL; -- or give it a primary key"
        what = f"{relation.full_name} has no replica identity and is published"
        yield Noticed("identity_lost", root.full_name, what, False, reason, remedy)


def _is_published(relation: RelationShape, seen: Shapes) -> bool:
    """Say whether its rows are sent: it, or a table that it is a partition of, is named by the publication."""
    while not relation.published:
        if relation.parent is None or relation.parent not in seen.relations:
            return False
        relation = seen.relations[relation.parent]
    return True


def _root(relation: RelationShape, seen: Shapes) -> RelationShape:
    while relation.parent is not None and relation.parent in seen.relations:
        relation = seen.relations[relation.parent]
    return relation


# Partitions


def _partitions(pair: _Pair) -> Iterator[Noticed]:
    name, was, now = pair.name, pair.had, pair.has
    for one in sorted(now.keys() - was.keys()):
        part = now[one]
        if part.kind == "p":
            continue  # it has no rows itself
        if part.born and part.empty:
            reason = "there was nothing in it when it was first seen; what is written to it is sent"
            yield Noticed("partition_added", name, f"partition {part.full_name} was made", False, reason, NOTHING)
        else:
            reason = "rows that were in it before are not sent"
            remedy = REREAD.format(table=part.full_name)
            yield Noticed("partition_attached", name, f"partition {part.full_name} was added", True, reason, remedy)
    for one in sorted(was.keys() - now.keys()):
        if was[one].kind == "p":
            continue
        reason = "its rows are not in the table any more, and no delete was sent for them"
        remedy = f"Clear what was made from the rows of {was[one].full_name} yourself, or verify {name}."
        # A partition that was only detached is not related any more: that it is there still is not seen from here.
        what = f"partition {was[one].full_name} was detached or dropped"
        yield Noticed("partition_removed", name, what, True, reason, remedy)


# Types


def _types(known: Known, seen: Shapes) -> Iterator[Noticed]:
    words = {oid: list(_type(was, seen.types[oid])) for oid, was in known.shapes.types.items() if oid in seen.types}
    changed = {oid for oid, lines in words.items() if lines}
    if not changed:
        return
    for name, oid in known.tables.items():
        relation = seen.relations.get(oid)
        if relation is None or relation.full_name != name:
            continue
        for used in sorted(_closure(relation, seen.types) & changed):
            for what, rows in words[used]:
                reason = "values that were there read otherwise now, and no row was sent" if rows else "no row changed"
                remedy = REREAD.format(table=name) if rows else NOTHING
                yield Noticed("type_changed", name, f"type {seen.types[used].name}: {what}", rows, reason, remedy)


def _type(was: TypeShape, now: TypeShape) -> Iterator[tuple[str, bool]]:
    if was.name != now.name:
        yield f"was called {was.name}", False
    old, new = dict(was.labels), dict(now.labels)
    for oid, label in new.items():
        if oid not in old:
            yield f"label {quote(label)} was added", False
        elif old[oid] != label:
            yield f"label {quote(old[oid])} was renamed to {quote(label)}", True
    if set(old) == set(new) and list(old) != list(new):
        yield "its labels have another order", False
    before, after = ({one[0]: one[1:] for one in shape.attributes} for shape in (was, now))
    for number in sorted(before.keys() | after.keys()):
        if before.get(number) != after.get(number):
            yield _attribute(before.get(number), after.get(number)), True


def _attribute(was: tuple[str, int, str] | None, now: tuple[str, int, str] | None) -> str:
    if was is None or now is None:
        present = was or now
        assert present is not None
        return f"attribute {present[0]} was {'added' if was is None else 'dropped'}"
    return f"attribute {was[0]} {was[2]} is {now[0]} {now[2]} now"


def _closure(relation: RelationShape, types: Mapping[int, TypeShape]) -> set[int]:
    """Return the types that a table's columns are made of, at any depth."""
    found: set[int] = set()
    left = [column.type_oid for column in relation.columns]
    while left:
        oid = left.pop()
        if oid in types and oid not in found:
            found.add(oid)
            left += types[oid].parts
    return found
