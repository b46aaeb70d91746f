"""Numbers, bytes and uuid from binary."""

import math
import struct
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from backend_watcher.decode import values_binary as binary
from backend_watcher.errors import ProtocolError


def numeric(*groups: int, weight: int = 0, sign: int = 0, scale: int = 0) -> bytes:
    return struct.pack(f">HhHH{len(groups)}H", len(groups), weight, sign, scale, *groups)


@pytest.mark.parametrize(
    ("load", "data", "value"),
    [
        (binary.load_bool, b"\x01", True),
        (binary.load_bool, b"\x00", False),
        (binary.load_int2, b"\xff\xfe", -2),
        (binary.load_int4, b"\x80\x00\x00\x00", -(1 << 31)),
        (binary.load_int8, b"\x7f" + b"\xff" * 7, (1 << 63) - 1),
        (binary.load_unsigned4, b"\xff" * 4, (1 << 32) - 1),
        (binary.load_unsigned8, b"\xff" * 8, (1 << 64) - 1),
        (binary.load_float8, struct.pack(">d", 0.1), 0.1),
        (binary.load_float8, struct.pack(">d", -math.inf), -math.inf),
        (binary.load_float4, struct.pack(">f", 0.1), 0.1),
        (binary.load_float4, b"\x00\x00\x00\x01", 1e-45),
        (binary.load_float4, struct.pack(">f", 16777216), 16777216.0),
        (binary.load_float4, b"\x7f\x7f\xff\xff", 3.4028235e38),
        (binary.load_float4, struct.pack(">f", 2.0**-44), 5.684342e-14),
        # 1.073752e+09 would be half-way to the next float4.
        (binary.load_float4, struct.pack(">f", 1073752064), 1.0737521e9),
        (binary.load_float4, struct.pack(">f", math.inf), math.inf),
        (binary.load_float4, struct.pack(">f", -0.0), -0.0),
        (binary.load_numeric, numeric(), Decimal(0)),
        (binary.load_numeric, numeric(scale=3), Decimal("0.000")),
        (binary.load_numeric, numeric(1, 1000, scale=2), Decimal("1.10")),
        (binary.load_numeric, numeric(1, 1000, scale=2, sign=0x4000), Decimal("-1.10")),
        (binary.load_numeric, numeric(1, weight=2), Decimal(100000000)),
        (binary.load_numeric, numeric(10, weight=-2, scale=8), Decimal("0.00000010")),
        (binary.load_numeric, numeric(12, 3456, 7890, weight=1, scale=2), Decimal("123456.78")),
        (binary.load_numeric, numeric(sign=0xD000), Decimal("Infinity")),
        (binary.load_numeric, numeric(sign=0xF000), Decimal("-Infinity")),
        (binary.load_numeric, numeric(sign=0xC000), Decimal("NaN")),
        (binary.load_bytea, b"\x00\xff", b"\x00\xff"),
        (binary.load_char, b"a", "a"),
        (binary.load_char, b"\x00", ""),
        (binary.load_char, b"\x80", "\\200"),
        (binary.load_uuid, bytes(range(16)), UUID(bytes=bytes(range(16)))),
        (binary.load_versioned_text, b"\x01$.a", "$.a"),
    ],
)
def test_value(load: Any, data: bytes, value: Any) -> None:
    loaded = load(data)
    assert type(loaded) is type(value)
    assert str(loaded) == str(value)


def test_float_not_a_number() -> None:
    assert math.isnan(binary.load_float4(struct.pack(">f", math.nan)))
    assert math.isnan(binary.load_float8(struct.pack(">d", math.nan)))


@pytest.mark.parametrize(
    ("load", "data"),
    [
        (binary.load_bool, b"\x02"),
        (binary.load_int2, b"\x00"),
        (binary.load_int4, b"\x00" * 5),
        (binary.load_int8, b""),
        (binary.load_unsigned4, b""),
        (binary.load_unsigned8, b"\x00" * 4),
        (binary.load_float4, b"\x00" * 8),
        (binary.load_float8, b"\x00" * 4),
        (binary.load_numeric, b"\x00" * 7),
        (binary.load_numeric, numeric(1)[:-1]),
        (binary.load_numeric, numeric(1) + b"\x00"),
        (binary.load_numeric, numeric(10_000)),
        (binary.load_numeric, numeric(1, sign=0x1234)),
        (binary.load_numeric, numeric(1, scale=0x4000)),
        (binary.load_char, b""),
        (binary.load_char, b"ab"),
        (binary.load_uuid, b"\x00" * 15),
        (binary.load_versioned_text, b"\x02$"),
    ],
)
def test_malformed(load: Any, data: bytes) -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        load(data)
