"""Text made from binary: addresses, money, bits, and elements of arrays."""

import struct
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from backend_watcher.decode import values_print as printed
from backend_watcher.decode.values_own import Interval
from backend_watcher.errors import ProtocolError


def ip6(*words: int, bits: int = 128, is_cidr: int = 0) -> bytes:
    return bytes([3, bits, is_cidr, 16]) + struct.pack(">8H", *words)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (bytes([2, 32, 0, 4, 192, 168, 0, 1]), "192.168.0.1"),
        (bytes([2, 24, 0, 4, 192, 168, 0, 1]), "192.168.0.1/24"),
        (bytes([2, 32, 1, 4, 192, 168, 0, 1]), "192.168.0.1/32"),
        (ip6(0, 0, 0, 0, 0, 0, 0, 0), "::"),
        (ip6(0, 0, 0, 0, 0, 0, 0, 1, bits=64), "::1/64"),
        (ip6(0x2001, 0xDB8, 0, 1, 0, 0, 0, 1), "2001:db8:0:1::1"),
        (ip6(1, 0, 0, 2, 0, 0, 0, 3), "1:0:0:2::3"),
        (ip6(1, 0, 0, 2, 3, 0, 0, 4), "1::2:3:0:0:4"),
        (ip6(1, 0, 2, 3, 4, 5, 6, 7), "1:0:2:3:4:5:6:7"),
        (ip6(1, 2, 3, 4, 5, 6, 0, 0), "1:2:3:4:5:6::"),
        (ip6(0, 0, 0, 0, 0, 0xFFFF, 0x102, 0x304), "::ffff:1.2.3.4"),
        (ip6(0, 0, 0, 0, 0, 0, 0x102, 0x304), "::1.2.3.4"),
        (ip6(0, 0, 0, 0, 0, 1, 0x102, 0x304), "::1:102:304"),
    ],
)
def test_inet(data: bytes, text: str) -> None:
    assert printed.print_inet(data) == text


def test_other_texts() -> None:
    assert printed.print_mac(bytes(range(6))) == "00:01:02:03:04:05"
    assert printed.print_mac(bytes(range(8))) == "00:01:02:03:04:05:06:07"
    assert printed.print_money(struct.pack(">q", -123456789)) == "-$1,234,567.89"
    assert printed.print_money(struct.pack(">q", 5)) == "$0.05"
    assert printed.print_money(bytes(8)) == "$0.00"
    assert printed.print_bits(struct.pack(">i", 9) + b"\xaa\x80") == "101010101"
    assert printed.print_bits(struct.pack(">i", 0)) == ""
    assert printed.print_lsn(struct.pack(">Q", 0x16_B374_D848)) == "16/B374D848"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "t"),
        (False, "f"),
        (-5, "-5"),
        ("a", "a"),
        (b"\x00\xff", "\\x00ff"),
        (Decimal("1E+20"), "100000000000000000000"),
        (Decimal("NaN"), "NaN"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (date(1, 2, 3), "0001-02-03"),
        (time(1, 2, 3, 500_000), "01:02:03.5"),
        (time(1, 2, 3, tzinfo=UTC), "01:02:03+00"),
        (time(1, 2, tzinfo=timezone(timedelta(hours=-1, minutes=-30))), "01:02:00-01:30"),
        (time(1, 2, tzinfo=timezone(timedelta(hours=1, seconds=1))), "01:02:00+01:00:01"),
        (datetime(2024, 1, 2, 3, 4, 5, 120_000), "2024-01-02 03:04:05.12"),
        (datetime(2024, 1, 2), "2024-01-02 00:00:00"),
        (datetime(2024, 1, 2, tzinfo=UTC), "2024-01-02 00:00:00+00"),
        (Interval(1, -1, 0), "1 mon -1 days"),
    ],
)
def test_value(value: Any, text: str) -> None:
    assert printed.print_value(value, 15) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (1e14, 15, "100000000000000"),
        (1e15, 15, "1e+15"),
        (1.5e300, 15, "1.5e+300"),
        (123456.0, 6, "123456"),
        (1e6, 6, "1e+06"),
        (0.0001, 15, "0.0001"),
        (-0.00001, 15, "-1e-05"),
        (-0.0, 15, "-0"),
        (1.25, 15, "1.25"),
        (float("nan"), 15, "NaN"),
        (float("-inf"), 15, "-Infinity"),
    ],
)
def test_float(value: float, digits: int, text: str) -> None:
    assert printed.print_value(value, digits) == text


@pytest.mark.parametrize(
    ("load", "data"),
    [
        (printed.print_inet, b""),
        (printed.print_inet, bytes([2, 33, 0, 4, 1, 2, 3, 4])),
        (printed.print_inet, bytes([2, 32, 0, 4, 1, 2, 3])),
        (printed.print_inet, bytes([9, 32, 0, 4, 1, 2, 3, 4])),
        (printed.print_mac, b"\x00" * 7),
        (printed.print_money, b""),
        (printed.print_bits, b"\x00\x00"),
        (printed.print_bits, struct.pack(">i", 9) + b"\x00"),
        (printed.print_lsn, b"\x00" * 7),
    ],
)
def test_malformed(load: Any, data: bytes) -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        load(data)
