"""Positions: written, read, and in order, as text too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.events.position import START, Position, format_lsn, parse_lsn

LSNS = st.integers(0, 2**64 - 1)
POSITIONS = st.builds(Position, LSNS, st.integers(-1, 2**32 - 1))


@pytest.mark.parametrize(
    ("lsn", "text"),
    [(0, "0/0"), (0x16_B374D848, "16/B374D848"), (0x100000000, "1/0"), (2**64 - 1, "FFFFFFFF/FFFFFFFF")],
)
def test_an_lsn_is_written_as_postgresql_does(lsn: int, text: str) -> None:
    assert format_lsn(lsn) == text
    assert parse_lsn(text) == parse_lsn(f" {text.lower()}\n") == lsn


@given(LSNS)
def test_an_lsn_is_read_as_it_was_written(lsn: int) -> None:
    assert parse_lsn(format_lsn(lsn)) == lsn


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "1",
        "1/",
        "/1",
        "1/2/3",
        "123456789/0",
        "0/123456789",
        "g/0",
        "-1/0",
        "+1/0",
        "0x1/0",
        "1_0/0",
        "1/ 2",
        "١/0",
    ],
)
def test_what_is_not_an_lsn(text: str) -> None:
    with pytest.raises(ValueError, match="is not an LSN"):
        parse_lsn(text)
    with pytest.raises(ValueError, match="is not an LSN"):
        Position.parse(f"{text}:0")


@given(POSITIONS)
def test_a_position_is_read_as_it_was_written(position: Position) -> None:
    assert Position.parse(str(position)) == position


def test_a_position_as_text() -> None:
    assert str(Position(0x16_B374D848, 7)) == "16/B374D848:7"


@pytest.mark.parametrize("text", ["", "16/B374D848", "16/B374D848:", "16/B374D848:x", ":1", "5"])
def test_what_is_not_a_position(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not|invalid literal"):
        Position.parse(text)


@given(st.builds(Position, LSNS, st.integers(0, 2**32 - 1)), st.builds(Position, LSNS, st.integers(0, 2**32 - 1)))
def test_sort_keys_sort_as_positions_do(one: Position, other: Position) -> None:
    assert (one < other) == (one.sort_key < other.sort_key)
    assert len(one.sort_key) == 24


@given(st.builds(Position, LSNS, st.integers(0, 2**32 - 1)))
def test_start_is_before_everything(position: Position) -> None:
    assert position > START
    assert START.sort_key < position.sort_key
