"""Ranges and multiranges, from text and from binary, and back into the server's text."""

from __future__ import annotations

import pickle
import struct
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.decode.values import is_binary_equal, load_binary_of, load_text_of
from backend_watcher.decode.values_own import PostgresText
from backend_watcher.decode.values_range import EMPTY, Multirange, Range
from backend_watcher.decode.values_types import TYPES
from backend_watcher.errors import ProtocolError
from backend_watcher.events.envelope import value_to_json

INT4, TSTZ, NUM = "int4range", "tstzrange", "numrange"
MOMENT = datetime(2026, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)
FOREVER = PostgresText("infinity", TYPES["timestamptz"][0])

CASES = [
    (INT4, "empty", EMPTY),
    (INT4, "(,)", Range()),
    (INT4, "[1,5)", Range(1, 5, True)),
    (INT4, "(,5)", Range(None, 5)),
    (INT4, "[-2147483648,)", Range(-(1 << 31), None, True)),
    ("int8range", "[1,9223372036854775807)", Range(1, (1 << 63) - 1, True)),
    (NUM, "[1.50,2.5]", Range(Decimal("1.50"), Decimal("2.5"), True, True)),
    ("daterange", "[2026-01-01,2026-02-01)", Range(date(2026, 1, 1), date(2026, 2, 1), True)),
    (TSTZ, '["2026-01-01 00:00:00.5+00",infinity)', Range(MOMENT, FOREVER, True)),
    (TSTZ, '("2026-01-01 00:00:00.5+00",)', Range(MOMENT)),
    ("tsrange", '["0044-03-15 00:00:00 BC",)', Range(PostgresText("0044-03-15 00:00:00 BC", 1114), None, True)),
    ("int4multirange", "{}", Multirange()),
    ("int4multirange", "{(,-5),[7,9)}", Multirange((Range(None, -5), Range(7, 9, True)))),
]


def text(kind: str, given: str) -> Any:
    return load_text_of(TYPES[kind][0])(given.encode())


def binary(kind: str, given: bytes) -> Any:
    return load_binary_of(TYPES[kind][0])(given)


@pytest.mark.parametrize(("kind", "given", "value"), CASES)
def test_text_becomes_a_value_and_the_same_text_again(kind: str, given: str, value: Any) -> None:
    loaded = text(kind, given)
    assert loaded == value
    assert str(loaded) == given
    assert pickle.loads(pickle.dumps(loaded)) == loaded
    assert hash(loaded) == hash(value)
    assert value_to_json(loaded) == value_to_json(given)


def test_a_missing_end_is_no_infinity() -> None:
    assert text(TSTZ, "[infinity,infinity]") != text(TSTZ, "(,)")
    assert text(TSTZ, "(-infinity,)").lower == "-infinity"
    assert text(TSTZ, "(,)").lower is None


def test_binary() -> None:
    assert binary(INT4, b"\x01") == EMPTY
    assert binary(INT4, b"\x18") == Range()
    one_to_five = struct.pack(">BIiIi", 0x02, 4, 1, 4, 5)
    assert binary(INT4, one_to_five) == Range(1, 5, True)
    assert binary(INT4, struct.pack(">BIi", 0x08, 4, 5)) == Range(None, 5)
    many = struct.pack(">II", 2, 1) + b"\x18" + struct.pack(">I", len(one_to_five)) + one_to_five
    assert binary("int4multirange", many) == Multirange((Range(), Range(1, 5, True)))
    assert is_binary_equal(TYPES[INT4][0])
    assert is_binary_equal(TYPES["tstzmultirange"][1])


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        *((INT4, bad) for bad in (b"", b"[1,5", b"1,5", b"[1;5)", b"[1,5)x", b"[1,5,6)", b"[,5)", b"(1,]", b'["",5)')),
        *((INT4, bad) for bad in (b"EMPTY", b"[a,5)", b"[ 1,5)", b"{[1,5)}")),
        *(("int4multirange", bad) for bad in (b"", b"{", b"}", b"{,}", b"{[1,5)", b"{[1,5)x}", b"{[1,5),}", b"[1,5)")),
    ],
)
def test_text_that_is_none_is_refused_without_being_shown(kind: str, data: bytes) -> None:
    with pytest.raises(ProtocolError) as refused:
        load_text_of(TYPES[kind][0])(data)
    assert "5" not in str(refused.value).replace(f"{len(data)} bytes", "")


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        *(
            (INT4, bad)
            for bad in (b"", b"\x20", b"\x01x", b"\x02", b"\x02\0\0\0\x05abcd", b"\x18x", b"\x0a\0\0\0\x04abcd")
        ),
        *(("int4multirange", bad) for bad in (b"", b"\0\0\0\x01", b"\xff\xff\xff\xff\0\0\0\0\0", b"\0\0\0\0x")),
        ("int4multirange", b"\0\0\0\x01\0\0\0\x09\x18"),
    ],
)
def test_binary_that_is_none_is_refused(kind: str, data: bytes) -> None:
    with pytest.raises(ProtocolError):
        binary(kind, data)


@given(st.none() | st.integers(-5, 5), st.none() | st.integers(-5, 5), st.booleans(), st.booleans(), st.integers(-7, 7))
def test_what_lies_in_it(lower: int | None, upper: int | None, with_lower: bool, with_upper: bool, value: int) -> None:
    one = Range(lower, upper, with_lower and lower is not None, with_upper and upper is not None)
    above = lower is None or value > lower or (with_lower and value == lower)
    below = upper is None or value < upper or (with_upper and value == upper)
    assert (value in one) == (above and below)
    assert (value in Multirange((EMPTY, one))) == (value in one)
    assert value not in EMPTY


def test_a_multirange_is_its_ranges() -> None:
    many = text("int4multirange", "{[1,2),[5,)}")
    assert (list(many), len(many), 3 in many, 7 in many) == ([Range(1, 2, True), Range(5, None, True)], 2, False, True)


def test_arrays_of_ranges() -> None:
    load = load_text_of(TYPES[INT4][1])
    assert load(b'{"[1,5)",empty,NULL}') == [Range(1, 5, True), EMPTY, None]
    assert value_to_json([Range(1, 5, True), EMPTY]) == b'["[1,5)","empty"]'


def test_a_bound_that_needs_quotes_is_quoted() -> None:
    assert str(Range('a"b\\', "", True)) == '["a""b\\\\","")'
