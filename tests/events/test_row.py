"""One row: four states, two forms, nothing decoded before it is asked for."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.events.row import ABSENT, UNCHANGED, Missing, Row
from backend_watcher.events.table import Column, Table


class Loads:
    """Two loaders that remember what they were asked to read."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def text(self, data: bytes) -> str:
        self.asked.append(data)
        return "text " + data.decode()

    def binary(self, data: bytes) -> str:
        self.asked.append(data)
        return "binary " + data.hex()


def make(values: list[Any], loads: Loads | None = None, *, key_only: bool = False, before: bytes = b"##") -> Row:
    """Columns id (identity), b, c, …; bytes are text, (bytes,) is binary, None is NULL, Ellipsis is unchanged."""
    loads = loads or Loads()
    names = ["id", *(chr(ord("a") + number) for number in range(1, len(values)))][: len(values)]
    columns = tuple(Column(name, 25, -1, name == "id", loads.text, loads.binary) for name in names)
    table = Table(5, "public", "t", "d", columns, ("id",) if columns[:1] else ())
    data = before + struct.pack(">H", len(values))
    for value in values:
        if value is None or value is ...:
            data += b"n" if value is None else b"u"
        else:
            cell = value[0] if isinstance(value, tuple) else value
            data += (b"b" if isinstance(value, tuple) else b"t") + struct.pack(">I", len(cell)) + cell
    return Row(table, data + b"behind", len(before), key_only)


FOUR = [b"1", None, ..., (b"\xff",), b""]


def test_the_states_of_a_new_row() -> None:
    row = make(FOUR)
    assert [row[name] for name in row] == ["text 1", None, UNCHANGED, "binary ff", "text "]
    assert [row.raw(name) for name in row] == [b"1", None, UNCHANGED, b"\xff", b""]
    assert [row.raw_at(index) for index in range(5)] == [b"1", None, UNCHANGED, b"\xff", b""]
    assert [row.has_value(name) for name in row] == [True, True, False, True, True]


def test_the_states_of_a_key_only_row() -> None:
    row = make([None, None, b"2"], key_only=True)
    # A column of the key that is NULL is NULL; another one was not sent.
    assert row.to_dict() == {"id": None, "b": ABSENT, "c": "text 2"}
    assert [row.has_value(name) for name in row] == [True, False, True]
    assert row["b"] is row.raw("b") is row.raw_at(1) is ABSENT


@given(
    st.lists(st.one_of(st.none(), st.just(...), st.binary(max_size=9), st.tuples(st.binary(max_size=300))), max_size=9)
)
def test_every_way_of_asking_gives_the_same(values: list[Any]) -> None:
    decodable = [v.hex().encode() if isinstance(v, bytes) else v for v in values]
    row = make(decodable)
    expected = [
        None
        if v is None
        else UNCHANGED
        if v is ...
        else f"binary {v[0].hex()}"
        if isinstance(v, tuple)
        else f"text {v.decode()}"
        for v in decodable
    ]
    assert list(row.to_dict().values()) == row.values() == [row[name] for name in row] == expected
    assert row.items() == list(zip(row.keys(), expected, strict=True))
    assert [row.get(name) for name in row] == expected
    assert len(row) == len(values)


def test_nothing_is_decoded_before_it_is_asked_for() -> None:
    loads = Loads()
    row = make([b"1", b"2", b"3"], loads)
    assert "b" in row
    assert (len(row), list(row), row.keys()) == (3, ["id", "b", "c"], ["id", "b", "c"])
    assert row.raw("b") == b"2"
    assert row.has_value("c")
    assert repr(row)
    assert not row.differs(make([b"1", b"2", b"3"], loads), "b")
    assert loads.asked == []
    assert row["b"] == "text 2"
    assert loads.asked == [b"2"]
    row.to_dict()
    assert loads.asked == [b"2", b"1", b"2", b"3"]


def test_a_loader_is_not_asked_about_what_has_no_value() -> None:
    loads = Loads()
    row = make([None, ...], loads)
    assert row.to_dict() == {"id": None, "b": UNCHANGED}
    assert make([None, None], loads, key_only=True).to_dict()["b"] is ABSENT
    assert loads.asked == []


def test_an_unknown_column() -> None:
    for row in (make(FOUR), Row.of(make(FOUR).table, {"id": 1})):
        with pytest.raises(KeyError, match=r"public\.t has no column 'price'"):
            row["price"]
        with pytest.raises(KeyError):
            row.raw("price")
        assert row.get("price") is None
        assert row.get("price", 7) == 7
        assert "price" not in row


@pytest.mark.parametrize("index", [-1, -(2**40), 5, 6, 65536, 2**40])
def test_a_column_number_that_is_not_there(index: int) -> None:
    for row in (make(FOUR), Row.of(make(FOUR).table, {"id": 1})):
        with pytest.raises(IndexError, match="has no column number"):
            row.raw_at(index)


@pytest.mark.parametrize("missing", list(Missing))
def test_what_has_no_value_is_neither_true_nor_false(missing: Missing) -> None:
    with pytest.raises(TypeError, match=f"the column is {missing.value}"):
        bool(missing)
    with pytest.raises(TypeError):
        assert not missing
    assert repr(missing) == missing.name
    assert missing is not None
    assert missing != "x"


def test_a_row_is_a_mapping() -> None:
    row = make([b"1", ...])
    assert isinstance(row, Mapping)
    assert {**row} == dict(row) == row.to_dict()  # type: ignore[arg-type]
    match row:
        case {"id": value}:
            assert value == "text 1"


def test_equality() -> None:
    row = make([b"1", ...])
    assert row == make([b"1", ...], before=b"elsewhere")
    assert row == {"id": "text 1", "b": UNCHANGED}
    assert row != make([b"1", None])
    assert row != {"id": "text 1"}
    assert row != 5
    with pytest.raises(TypeError):
        hash(row)


def test_a_row_of_no_columns() -> None:
    row = make([])
    assert (len(row), row.to_dict(), list(row)) == (0, {}, [])


def test_a_row_from_python_values() -> None:
    table = make(FOUR).table
    row = Row.of(table, {"c": None, "id": 5, "b": UNCHANGED, "no column": 1})
    assert row.to_dict() == {"id": 5, "b": UNCHANGED, "c": None, "d": ABSENT, "e": ABSENT}
    assert (row["id"], row.raw("id"), row.raw_at(0)) == (5, 5, 5)
    assert [row.has_value(name) for name in row] == [True, False, True, False, False]
    row.to_dict()["id"] = 6
    assert row["id"] == 5
    assert row.table is table


def test_differs_compares_bytes_with_bytes_and_values_with_values() -> None:
    sent = make([b"1", b"2"])
    assert sent.differs(make([b"1", b"3"]), "b")
    assert not sent.differs(make([b"1", (b"2",)]), "b")
    made = Row.of(sent.table, {"id": "text 1", "b": "other"})
    for one, other in ((sent, made), (made, sent)):
        assert not one.differs(other, "id")
        assert one.differs(other, "b")


def test_a_repr_shows_no_values() -> None:
    sent = make([b"secret", (b"secret",)])
    for row in (sent, Row.of(sent.table, {"id": "secret"})):
        assert repr(row) == str(row) == "Row('public.t', 2 columns)"


def test_the_last_column_reaches_to_the_last_byte() -> None:
    loads = Loads()
    columns = (Column("id", 25, -1, True, loads.text, loads.binary),)
    table = Table(5, "public", "t", "d", columns, ("id",))
    assert Row(table, b"\0\1t\0\0\0\2ab", 0, False)["id"] == "text ab"


def test_long_values() -> None:
    long = b"x" * 70_000
    row = make([long, b"y" * 200, b"z"])
    assert (len(row.raw("id")), row["c"], len(row["id"])) == (70_000, "text z", 70_005)
