"""The shape of a row: names, keys, and a version that is the content."""

from __future__ import annotations

import pytest

from backend_watcher.events.table import Column, Table, qualify


def column(name: str, type_oid: int = 25, modifier: int = -1, *, identity: bool = False) -> Column:
    return Column(name, type_oid, modifier, identity, bytes.decode, bytes)


def make(columns: tuple[Column, ...] = (column("b", identity=True), column("a")), **changed: object) -> Table:
    arguments: dict[str, object] = {
        "relation_oid": 5,
        "schema": "public",
        "name": "t",
        "replica_identity": "d",
        "columns": columns,
        "primary_key": ("b",),
    }
    return Table(**(arguments | changed))  # type: ignore[arg-type]


def test_indexes() -> None:
    table = make((column("b", identity=True), column("c"), column("a", identity=True)), primary_key=("a", "b"))
    assert table.index_of == {"b": 0, "c": 1, "a": 2}
    assert table.key_indexes == table.identity_indexes == (2, 0)


def test_where_old_rows_hold_another_index_it_tells_rows_apart() -> None:
    table = make((column("b"), column("c", identity=True)), replica_identity="i")
    assert (table.key_indexes, table.identity_indexes) == ((0,), (1,))
    # With REPLICA IDENTITY NOTHING no column is flagged, and only inserts come.
    assert make((column("b"), column("c")), replica_identity="n").identity_indexes == (0,)


def test_without_a_primary_key_the_replica_identity_tells_rows_apart() -> None:
    table = make((column("b"), column("c", identity=True), column("a", identity=True)), primary_key=())
    assert table.key_indexes == ()
    assert table.identity_indexes == (1, 2)
    assert make((column("b"),), primary_key=()).identity_indexes == ()


@pytest.mark.parametrize(
    "changed",
    [
        {"relation_oid": 6},
        {"schema": "other"},
        {"name": "u"},
        {"replica_identity": "f"},
        {"primary_key": ("b", "a")},
        {"primary_key": ("a",)},
        {"primary_key": ()},
        {"columns": (column("b", identity=True),)},
        {"columns": (column("a"), column("b", identity=True))},
        {"columns": (column("b", identity=True), column("a", 20))},
        {"columns": (column("b", identity=True), column("a", modifier=5))},
        {"columns": (column("b", identity=True), column("a", identity=True))},
    ],
    ids=str,
)
def test_another_shape_has_another_version(changed: dict[str, object]) -> None:
    assert make(**changed).version != make().version


def test_a_version_is_the_content_alone() -> None:
    assert make().version == make().version
    # A journal keeps it in a signed column of eight bytes.
    assert all(0 <= make(name=f"t{number}").version < 2**63 for number in range(40))


@pytest.mark.parametrize(
    ("schema", "name", "full"),
    [
        ("public", "t", "public.t"),
        ("a.b", "t", '"a.b".t'),
        ("a", "b.t", 'a."b.t"'),
        ('"a', "t", '"""a".t'),
        ("a", 'b".c', 'a."b"".c"'),
        ("Größe", "t u", "Größe.t u"),
    ],
)
def test_no_two_tables_have_one_full_name(schema: str, name: str, full: str) -> None:
    assert qualify(schema, name) == full
    assert make(schema=schema, name=name).full_name == full


def test_repr() -> None:
    assert repr(make()) == "Table('public.t')"
    assert repr(column("a", 20)) == "Column('a', 20)"
