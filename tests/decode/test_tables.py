"""Tables from what the server says, and from what the journal kept."""

from __future__ import annotations

from backend_watcher.decode.tables import load_table, make_table
from backend_watcher.decode.values import load_binary_of, load_text_of
from backend_watcher.events.table import Table

COLUMNS = [("id", 20, -1, True), ("größe \udcff", 1043, 24, False), ("tags", 1009, -1, False)]


def make() -> Table:
    return make_table(4_000_000_000, "Öffentlich", 'a"b', "i", COLUMNS, ["id"])


def test_what_was_said() -> None:
    table = make()
    assert (table.relation_oid, table.schema, table.name, table.replica_identity) == (
        4_000_000_000,
        "Öffentlich",
        'a"b',
        "i",
    )
    assert [(c.name, c.type_oid, c.modifier, c.identity) for c in table.columns] == COLUMNS
    assert table.primary_key == ("id",)


def test_each_column_has_what_reads_its_type() -> None:
    for column in make().columns:
        assert column.load_text == load_text_of(column.type_oid)
        assert column.load_binary == load_binary_of(column.type_oid)


def test_a_dump_is_loaded_as_it_was() -> None:
    table = make()
    again = load_table(table.dump())
    assert again.dump() == table.dump()
    assert again.version == table.version
    assert isinstance(again.primary_key, tuple)
    assert [c.load_text(b"1") for c in again.columns[:2]] == [1, "1"]


def test_a_dump_of_an_earlier_day() -> None:
    kept = (
        b'{"relation_oid":5,"schema":"public","name":"t","replica_identity":"d",'
        b'"columns":[["id",20,-1,true],["n",25,-1,false]],"primary_key":["id"]}'
    )
    table = load_table(kept)
    assert table.dump() == kept
    assert table.version == 0x4830D79E59094AFD
    assert table.key_indexes == (0,)
