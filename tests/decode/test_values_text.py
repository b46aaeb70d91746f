"""Numbers, strings, bytes and uuid from text."""

import math
from decimal import Decimal, localcontext
from typing import Any
from uuid import UUID

import pytest

from backend_watcher.decode import values_text as text
from backend_watcher.errors import ProtocolError


@pytest.mark.parametrize(
    ("load", "data", "value"),
    [
        (text.load_bool, b"t", True),
        (text.load_bool, b"f", False),
        (text.load_int, b"-9223372036854775808", -(1 << 63)),
        (text.load_int, b"18446744073709551615", (1 << 64) - 1),
        (text.load_float, b"0.1", 0.1),
        (text.load_float, b"5e-324", 5e-324),
        (text.load_float, b"-Infinity", -math.inf),
        (text.load_numeric, b"1.10", Decimal("1.10")),
        (text.load_numeric, b"Infinity", Decimal("Infinity")),
        (text.load_text, "grün 😀".encode(), "grün 😀"),
        (text.load_text, b"", ""),
        (text.load_bytea, b"\\x00ff", b"\x00\xff"),
        (text.load_bytea, b"\\x", b""),
        (text.load_uuid, b"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
    ],
)
def test_value(load: Any, data: bytes, value: Any) -> None:
    loaded = load(data)
    assert loaded == value
    assert str(loaded) == str(value)


def test_not_a_number() -> None:
    assert math.isnan(text.load_float(b"NaN"))
    assert text.load_numeric(b"NaN").is_nan()
    assert math.copysign(1, text.load_float(b"-0")) == -1


def test_numeric_is_exact_whatever_the_precision() -> None:
    digits = "9" * 131072 + "." + "9" * 16383
    with localcontext(prec=3):
        assert str(text.load_numeric(digits.encode())) == digits


def test_numeric_with_a_hostile_exponent_stays_a_decimal() -> None:
    assert text.load_numeric(b"1e131071").adjusted() == 131071
    with pytest.raises(ProtocolError):
        text.load_numeric(b"1e99999999999999999999")


def test_bytes_that_are_no_utf8_come_back() -> None:
    value = text.load_text(b"caf\xe9\x00")
    assert value == "caf\udce9\0"
    assert value.encode("utf-8", "surrogateescape") == b"caf\xe9\x00"


@pytest.mark.parametrize(
    ("load", "data"),
    [
        (text.load_bool, b"true"),
        (text.load_bool, b""),
        (text.load_int, b"1.0"),
        (text.load_int, b"9" * 5000),
        (text.load_int, b"\xff"),
        (text.load_float, b"one"),
        (text.load_numeric, b"1,5"),
        (text.load_numeric, b"\xff"),
        (text.load_bytea, b"00"),
        (text.load_bytea, b"\\x0"),
        (text.load_bytea, b"\\xzz"),
        (text.load_uuid, b"a0eebc99"),
        (text.load_uuid, b"\xff" * 32),
    ],
)
def test_malformed(load: Any, data: bytes) -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        load(data)
