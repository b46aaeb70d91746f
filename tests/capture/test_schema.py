"""Differences of tables, against a database that is only a few dictionaries, over random sequences of DDL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend_watcher.capture.schema import Known, Noticed, differences, gap_noticed
from backend_watcher.postgres.shapes import ColumnShape, RelationShape, Shapes, TypeShape

NAMES = ("public.a", "public.b")
INT, TEXT = 23, 25


@dataclass
class Table:
    """A table of the model. `columns`: number → (name, type, filled)."""

    schema: str
    name: str
    columns: dict[int, tuple[str, int, bool]]
    key: tuple[int, ...] = (1,)
    identity: str = "d"
    storage: int = 0
    touched: int = 0
    published: bool = True
    parent: int | None = None
    born: bool = False
    empty: bool = False
    next_number: int = 2


@dataclass
class Database:
    tables: dict[int, Table] = field(default_factory=dict)
    numbers: Any = field(default_factory=lambda: count(100))

    def named(self, name: str) -> int | None:
        """The OID behind a name."""
        return next((oid for oid, one in self.tables.items() if f"{one.schema}.{one.name}" == name), None)

    def create(self, name: str) -> None:
        if self.named(name) is None:
            schema, _, table = name.partition(".")
            oid = next(self.numbers)
            self.tables[oid] = Table(schema, table, {1: ("id", INT, False)}, storage=oid)

    def rewrite(self, oid: int) -> None:
        for one in (oid, *(part for part, table in self.tables.items() if table.parent == oid)):
            self.tables[one].storage = next(self.numbers)
            self.tables[one].touched += 1

    def shapes(self) -> Shapes:
        return Shapes({oid: shape_of(oid, table) for oid, table in self.tables.items()}, {})


def shape_of(oid: int, table: Table) -> RelationShape:
    columns = tuple(
        ColumnShape(number, name, type_oid, str(type_oid), False, "", filled)
        for number, (name, type_oid, filled) in sorted(table.columns.items())
    )
    quoted = f"{table.schema}.{table.name}"
    identified = table.identity == "f" or bool(table.identity == "d" and table.key)
    fixed = (oid, table.schema, table.name, quoted, "r", table.identity, identified, table.storage, str(table.touched))
    below = {"parent": table.parent, "born": table.born, "empty": table.empty}
    return RelationShape(*fixed, table.published, table.key, columns if table.parent is None else (), **below)


# Operations: each takes the database, a watched name, and a number that chooses


def add_column(db: Database, oid: int, dice: int) -> None:
    table = db.tables[oid]
    table.columns[table.next_number] = (f"c{dice}_{table.next_number}", INT, dice % 2 == 0)
    table.next_number += 1
    table.touched += 1


def drop_column(db: Database, oid: int, dice: int) -> None:
    table = db.tables[oid]
    free = [number for number in table.columns if number > 1 and number not in table.key]
    if free:
        del table.columns[free[dice % len(free)]]
        table.touched += 1


def rename_column(db: Database, oid: int, dice: int) -> None:
    table = db.tables[oid]
    number = list(table.columns)[dice % len(table.columns)]
    table.columns[number] = (f"r{next(db.numbers)}", *table.columns[number][1:])
    table.touched += 1


def retype(db: Database, oid: int, dice: int) -> None:
    table = db.tables[oid]
    number = list(table.columns)[dice % len(table.columns)]
    name, type_oid, filled = table.columns[number]
    table.columns[number] = (name, TEXT if type_oid == INT else INT, filled)
    db.rewrite(oid)


def rewrite(db: Database, oid: int, dice: int) -> None:
    db.rewrite(oid)


def truncate(db: Database, oid: int, dice: int) -> None:
    db.tables[oid].storage = next(db.numbers)


def drop(db: Database, oid: int, dice: int) -> None:
    for part in [one for one, table in db.tables.items() if table.parent == oid]:
        del db.tables[part]
    del db.tables[oid]


def rename(db: Database, oid: int, dice: int) -> None:
    new = ("public.a", "public.b", "public.x", "attic.a", "attic.y")[dice % 5]
    if db.named(new) is None:
        db.tables[oid].schema, _, db.tables[oid].name = new.partition(".")


def another_key(db: Database, oid: int, dice: int) -> None:
    numbers = list(db.tables[oid].columns)
    db.tables[oid].key = () if dice % 3 == 0 else (numbers[dice % len(numbers)],)


def identity(db: Database, oid: int, dice: int) -> None:
    db.tables[oid].identity = "dfn"[dice % 3]


def publish(db: Database, oid: int, dice: int) -> None:
    db.tables[oid].published = not db.tables[oid].published


def attach(db: Database, oid: int, dice: int) -> None:
    part = next(db.numbers)
    db.tables[part] = Table("parts", f"p{part}", {}, storage=part, published=False, parent=oid)
    db.tables[part].born, db.tables[part].empty = dice % 3 > 0, dice % 3 > 1


def detach(db: Database, oid: int, dice: int) -> None:
    parts = [one for one, table in db.tables.items() if table.parent == oid]
    if parts:
        del db.tables[parts[dice % len(parts)]]


OPERATIONS: tuple[Callable[[Database, int, int], None], ...] = (
    *(add_column, drop_column, rename_column, retype, rewrite, truncate, drop, rename),
    *(another_key, identity, publish, attach, detach),
)
STEP = st.tuples(st.sampled_from([*OPERATIONS, "create", "look"]), st.sampled_from(NAMES), st.integers(0, 29))


def expected(before: dict[str, int], was: dict[int, Table], now: Database) -> set[tuple[str, str, bool]]:
    """Compare everything with everything, without any of the code under test."""
    found = set()
    for name, oid in before.items():
        old = was.get(oid)
        had = old is not None and f"{old.schema}.{old.name}" == name
        here = now.named(name)
        if here is None and had and oid not in now.tables:
            found.add(("table_dropped", name, False))
        elif here is None and had:
            moved = now.tables[oid].name == name.partition(".")[2]
            found.add(("table_moved" if moved else "table_renamed", name, True))
        elif here is not None and here != oid:
            found.add(("table_recreated", name, True))
        elif here is not None and old is not None and not had:
            found.add(("table_renamed", name, True))
        elif here is not None and old is not None:
            found |= expected_inside(name, oid, old, was, now)
    for oid, table in now.tables.items():
        old = was.get(oid)
        if harmed(table, now.tables) and not (old is not None and harmed(old, was)):
            top = now.tables[table.parent] if table.parent is not None else table
            found.add(("identity_lost", f"{top.schema}.{top.name}", False))
    return found


def harmed(table: Table, tables: dict[int, Table]) -> bool:
    sent = table.published or (table.parent is not None and tables[table.parent].published)
    return sent and table.identity != "f" and not (table.identity == "d" and table.key)


def expected_inside(name: str, oid: int, old: Table, was: dict[int, Table], db: Database) -> set[tuple[str, str, bool]]:
    now = db.tables[oid]
    found: set[tuple[str, str, bool]] = set()
    tree = [oid, *(one for one, table in db.tables.items() if table.parent == oid)]
    rewritten = any(
        one in was and was[one].storage != db.tables[one].storage and was[one].touched != db.tables[one].touched
        for one in tree
    )
    found |= expected_columns(name, old.columns, now.columns, rewritten)
    if rewritten and not {("column_added", name, True), ("column_retyped", name, True)} & found:
        found.add(("rewritten", name, True))
    if old.key != now.key:
        found.add(("key_changed", name, True))
    if old.identity != now.identity and (now.identity == "f" or (now.identity == "d" and now.key)):
        found.add(("identity_changed", name, False))
    had = {one for one, table in was.items() if table.parent == oid}
    for part in set(tree[1:]) - had:
        quiet = db.tables[part].born and db.tables[part].empty
        found.add(("partition_added", name, False) if quiet else ("partition_attached", name, True))
    if had - set(tree):
        found.add(("partition_removed", name, True))
    return found


def expected_columns(
    name: str, was: dict[int, tuple[str, int, bool]], now: dict[int, tuple[str, int, bool]], rewritten: bool
) -> set[tuple[str, str, bool]]:
    found = set()
    for number in range(1, 100):
        a, b = was.get(number), now.get(number)
        if a is None and b is not None:
            found.add(("column_added", name, b[2] or rewritten))
        if a is not None and b is None:
            found.add(("column_dropped", name, False))
        if a is not None and b is not None and a[0] != b[0]:
            found.add(("column_renamed", name, True))
        if a is not None and b is not None and a[1] != b[1]:
            found.add(("column_retyped", name, True))
    return found


def facts(noticed: list[Noticed]) -> set[tuple[str, str, bool]]:
    return {(one.kind, one.table, one.needs_reread) for one in noticed}


def copied(db: Database) -> dict[int, Table]:
    return {oid: replace(table, columns=dict(table.columns)) for oid, table in db.tables.items()}


@settings(max_examples=600, deadline=None)
@given(st.lists(STEP, max_size=40))
def test_it_says_what_a_comparison_of_everything_says(steps: list[tuple[Any, str, int]]) -> None:
    db = Database()
    for name in NAMES:
        db.create(name)
    known, was = Known.first("0", db.shapes(), NAMES), copied(db)
    last = dict(known.tables)
    for operation, name, dice in [*steps, ("look", "", 0)]:
        oid = db.named(name)
        if operation == "create":
            db.create(name)
        elif operation == "look":
            seen = db.shapes()
            noticed = differences(known, seen, NAMES)
            assert facts(noticed) == expected(last, was, db)
            last |= {name: oid for name in NAMES if (oid := db.named(name)) is not None}
            for one in noticed:
                assert all((one.kind, one.table, one.what, one.reason, one.remedy)), one
            known, was = known.followed("1", seen, NAMES), copied(db)
            # What was told is known: it is not told again, nor after a restart.
            assert differences(known, seen, NAMES) == []
            read = Known.from_note(known.to_note())
            assert read == known
        elif oid is not None:
            operation(db, oid, dice)


# By hand


def one(**values: Any) -> RelationShape:
    columns = (
        ColumnShape(1, "id", INT, "integer", True, "", False),
        ColumnShape(2, "m", 900, "mood", False, "", False),
    )
    fixed = ("public", "a", "public.a", "r", "d", True, 1, "1", True, (1,), columns)
    return replace(RelationShape(7, *fixed), **values)


def of(relation: RelationShape, *types: TypeShape, **more: Any) -> Shapes:
    return Shapes({relation.oid: relation}, {one.oid: one for one in types}, **more)


MOOD = TypeShape(900, "mood", (), ((1, "good"), (2, "bad")))
PLACE = TypeShape(901, "place", (), (), ((1, "city", TEXT, "text"), (2, "mood", 900, "mood")))


@pytest.mark.parametrize(
    ("now", "words", "reread"),
    [
        (replace(MOOD, labels=((1, "good"), (2, "bad"), (3, "fine"))), 'label "fine" was added', False),
        (replace(MOOD, labels=((1, "good"), (2, "sad"))), 'label "bad" was renamed to "sad"', True),
        (replace(MOOD, labels=((2, "bad"), (1, "good"))), "another order", False),
        (replace(MOOD, name="feeling"), "was called mood", False),
    ],
)
def test_types_by_what_becomes_of_values(now: TypeShape, words: str, reread: bool) -> None:
    known = Known.first("0", of(one(), MOOD), ["public.a"])
    (noticed,) = differences(known, of(one(), now), ["public.a"])
    assert (noticed.kind, noticed.needs_reread) == ("type_changed", reread)
    assert words in noticed.what


def test_a_type_inside_a_type_counts() -> None:
    column = ColumnShape(2, "p", 902, "place[]", False, "", False)
    relation = one(columns=(one().columns[0], column))
    array = TypeShape(902, "place[]", (901,))
    known = Known.first("0", of(relation, array, PLACE, MOOD), ["public.a"])
    wider = replace(PLACE, attributes=(*PLACE.attributes, (3, "zip", TEXT, "text")))
    (noticed,) = differences(known, of(relation, array, wider, MOOD), ["public.a"])
    assert "attribute zip was added" in noticed.what
    renamed = replace(MOOD, labels=((1, "fine"), (2, "bad")))
    (noticed,) = differences(known, of(relation, array, PLACE, renamed), ["public.a"])
    assert noticed.needs_reread


def test_a_dropped_table_is_remembered_until_another_has_its_name() -> None:
    known = Known.first("0", of(one()), ["public.a"])
    gone = Shapes({}, {})
    assert [noticed.kind for noticed in differences(known, gone, ["public.a"])] == ["table_dropped"]
    known = known.followed("1", gone, ["public.a"])
    assert differences(known, gone, ["public.a"]) == []
    (noticed,) = differences(known, of(one(oid=8)), ["public.a"])
    assert (noticed.kind, noticed.what) == ("table_recreated", "was dropped and made again (OID 7, now 8)")


def test_what_nobody_sends_harms_nobody() -> None:
    bare = one(identified=False, key=())
    known = Known.first("0", of(one()), ["public.a"])
    assert "identity_lost" in {noticed.kind for noticed in differences(known, of(bare), ["public.a"])}
    for harmless in (of(bare, needs_identity=False), of(replace(bare, published=False))):
        assert "identity_lost" not in {noticed.kind for noticed in differences(known, harmless, ["public.a"])}


def test_a_table_that_is_not_watched_is_told_of_where_the_application_cannot_update_it() -> None:
    other = one(oid=8, name="other", quoted='public."other"', identified=False)
    known = Known.first("0", of(one()), ["public.a"])
    seen = Shapes({7: one(), 8: other}, {})
    (noticed,) = differences(known, seen, ["public.a"])
    assert (noticed.kind, noticed.table) == ("identity_lost", "public.other")
    assert noticed.remedy.startswith('ALTER TABLE public."other" REPLICA IDENTITY FULL;')


def test_a_newly_watched_table_is_no_difference_and_a_broken_note_is_none() -> None:
    known = Known.first("0", of(one()), [])
    assert differences(known, of(one()), ["public.a"]) == []
    for note in (None, "", "{}", "[]", '{"tables": {}}', known.to_note()[:-9]):
        assert Known.from_note(note) is None


def test_a_gap_names_its_publication() -> None:
    noticed = gap_noticed("shop", "it was dropped")
    assert (noticed.kind, noticed.table, noticed.needs_reread) == ("publication_altered", "publication shop", True)
    assert "--adopt-slot" in noticed.remedy


# Every table that is sent


def all_sent(seen: Shapes, *names: str) -> Known:
    return replace(Known.first("0", seen, names), all_sent=True)


def test_a_new_table_that_was_altered_before_the_first_look_is_told_of() -> None:
    nothing = Shapes({}, {})
    for known, altered, told in (
        (all_sent(nothing), True, ["altered_unseen"]),
        (all_sent(nothing), False, []),
        (Known.first("0", nothing, []), True, []),
    ):
        noticed = differences(known, of(one(altered=altered), MOOD), ["public.a"])
        assert [(found.kind, found.needs_reread) for found in noticed] == [(kind, True) for kind in told]


def test_a_new_table_with_a_type_or_a_partition_that_was_altered_is_told_of() -> None:
    (noticed,) = differences(all_sent(Shapes({}, {})), of(one(), replace(MOOD, altered=True)), ["public.a"])
    assert (noticed.kind, noticed.what) == ("altered_unseen", "type mood was altered before the first look at it")
    part = one(oid=8, name="a_1", parent=7, columns=(), altered=True)
    seen = Shapes({7: one(), 8: part}, {900: MOOD})
    (noticed,) = differences(all_sent(Shapes({}, {})), seen, ["public.a"])
    assert noticed.what.startswith("public.a_1 was altered")


def test_a_table_that_was_renamed_and_altered_is_told_of_under_both_names() -> None:
    known = all_sent(of(one(), MOOD), "public.a")
    wider = one(name="b", columns=(*one().columns, ColumnShape(3, "c", INT, "integer", False, "", True)), altered=True)
    told = [(found.kind, found.table) for found in differences(known, of(wider, MOOD), ["public.a", "public.b"])]
    assert told == [("table_renamed", "public.a"), ("column_added", "public.b")]
