"""Rows as fields of COPY, against the cells they came from."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.events.fields import cells_of, fields_of, join_cells, split_fields, text_line
from backend_watcher.events.row import ABSENT, UNCHANGED, Row
from backend_watcher.testing.builders import change, table

CELLS = st.lists(st.one_of(st.none(), st.binary(max_size=20)), max_size=12)


def tuple_of(cells: list[bytes | None]) -> bytes:
    parts = [b"n" if cell is None else b"t" + len(cell).to_bytes(4, "big") + cell for cell in cells]
    return len(cells).to_bytes(2, "big") + b"".join(parts)


@given(CELLS, st.integers(0, 5))
def test_fields_are_the_cells_without_their_kinds(cells: list[bytes | None], ahead: int) -> None:
    shape = table(columns={f"c{number}": "text" for number in range(len(cells))}, key=())
    row = Row(shape, bytes(ahead) + tuple_of(cells), ahead, False)
    assert fields_of(row) == join_cells(cells)
    assert split_fields(join_cells(cells)) == cells
    assert cells_of(row) == cells


def unescaped(cell: bytes) -> bytes | None:
    """What COPY makes of a column in text format."""
    letters = {b"t": b"\t", b"n": b"\n", b"r": b"\r", b"\\": b"\\"}
    return None if cell == b"\\N" else re.sub(rb"\\(.)", lambda found: letters[found[1]], cell)


@given(
    st.lists(
        st.one_of(st.none(), st.binary(max_size=20), st.text("\\\t\n\r.N").map(str.encode)), min_size=1, max_size=12
    )
)
def test_a_line_of_copy_has_the_same_cells(cells: list[bytes | None]) -> None:
    line = text_line(join_cells(cells))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert b"\r" not in line
    assert [unescaped(cell) for cell in line[:-1].split(b"\t")] == cells


def test_what_was_not_sent_has_no_field() -> None:
    made = change("update", new={"id": 1, "name": UNCHANGED, "stock": 2}, old={"id": 7})
    assert fields_of(made.new) is None
    assert cells_of(made.new) == [b"1", UNCHANGED, b"2"]
    assert cells_of(made.old) == [b"7", ABSENT, ABSENT]
    assert split_fields(join_cells(cells_of(made.new))) == [b"1", None, b"2"]


def test_binary_values_are_refused_and_not_taken_for_text() -> None:
    row = Row(table(columns={"id": "int4"}), b"\0\1b\0\0\0\4\0\0\0\1", 0, False)
    assert fields_of(row) is None
    with pytest.raises(ValueError, match=r"products\.id was sent in binary"):
        cells_of(row)


def test_a_transforms_values_are_written_as_postgresql_reads_them() -> None:
    shape = table(columns=dict.fromkeys("abcdefgh", "text"), key=())
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    values = [1.5, True, b"\0\xff", {"a": [1]}, None, UNCHANGED, moment, date(2026, 1, 2)]
    row = Row.of(shape, dict(zip("abcdefgh", values, strict=True)))
    assert fields_of(row) is None
    written = [b"1.5", b"t", b"\\x00ff", b'{"a": [1]}', None, UNCHANGED, b"2026-01-02T03:04:05+00:00", b"2026-01-02"]
    assert cells_of(row) == written
