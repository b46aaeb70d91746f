"""
Binary form becomes the text the server would have written, for the types whose Python value is that text.

Addresses, money, bit strings, positions in the log; and any value once more, as an element of an array whose
lower bound is not 1 (`values_array.py`).
"""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal
from struct import error as StructError  # noqa: N812
from struct import unpack
from typing import Any

from backend_watcher.decode.values_own import malformed

_FAMILY_IP4, _FAMILY_IP6 = 2, 3
_ADDRESS_BYTES = {_FAMILY_IP4: 4, _FAMILY_IP6: 16}
_ADDRESS_HEADER_BYTES = 4
_IP6_WORDS = 8
_FLOAT_EXPONENT_MIN = -4


def print_inet(data: bytes) -> str:
    """Print an inet or cidr; an inet that is one whole host has no mask."""
    if len(data) < _ADDRESS_HEADER_BYTES:
        raise malformed("inet", data)
    family, bits, is_cidr, size = data[:_ADDRESS_HEADER_BYTES]
    address = data[_ADDRESS_HEADER_BYTES:]
    if _ADDRESS_BYTES.get(family) != size or len(address) != size or bits > size * 8:
        raise malformed("inet", data)
    host = ".".join(map(str, address)) if family == _FAMILY_IP4 else _print_ip6(address)
    return host if bits == size * 8 and not is_cidr else f"{host}/{bits}"


def _print_ip6(address: bytes) -> str:
    words = unpack(">8H", address)
    start, length = _longest_zeros(words)
    if start == 0 and (length == 6 or (length == 5 and words[5] == 0xFFFF)):
        # An IPv4 address inside an IPv6 one.
        prefix = "::ffff:" if length == 5 else "::"
        return prefix + ".".join(map(str, address[12:]))
    if length < 2:
        return ":".join(f"{word:x}" for word in words)
    before = ":".join(f"{word:x}" for word in words[:start])
    after = ":".join(f"{word:x}" for word in words[start + length :])
    return f"{before}::{after}"


def _longest_zeros(words: tuple[int, ...]) -> tuple[int, int]:
    best = (0, 0)
    start = 0
    for index in range(_IP6_WORDS):
        if words[index]:
            start = index + 1
        elif index + 1 - start > best[1]:
            best = (start, index + 1 - start)
    return best


def print_mac(data: bytes) -> str:
    """Print a macaddr or macaddr8."""
    if len(data) not in (6, 8):
        raise malformed("macaddr", data)
    return data.hex(":")


def print_money(data: bytes) -> str:
    """Print a money as `lc_monetary` C does: $1,234.56."""
    try:
        (cents,) = unpack(">q", data)
    except StructError:
        raise malformed("money", data) from None
    whole, rest = divmod(abs(cents), 100)
    return f"{'-' if cents < 0 else ''}${whole:,}.{rest:02d}"


def print_bits(data: bytes) -> str:
    """Print a bit or bit varying."""
    size = int.from_bytes(data[:4], "big")
    body = data[4:]
    if len(data) < 4 or len(body) != (size + 7) // 8:
        raise malformed("bit string", data)
    return "".join([f"{byte:08b}" for byte in body])[:size]


def print_lsn(data: bytes) -> str:
    """Print a pg_lsn."""
    try:
        high, low = unpack(">II", data)
    except StructError:
        raise malformed("pg_lsn", data) from None
    return f"{high:X}/{low:X}"


def print_value(value: Any, float_digits: int) -> str:
    """Print what a binary loader returned. `float_digits` is 6 for float4 and 15 for float8."""
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, float):
        return _print_float(value, float_digits)
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, datetime):
        return _print_clock(value.isoformat(" "))
    if isinstance(value, time):
        return _print_clock(value.isoformat())
    if isinstance(value, date):
        return value.isoformat()
    return str(value)


def _print_clock(text: str) -> str:
    # Python writes six digits of a second or none, and minutes of an offset even if they are zero.
    at = max(text.rfind("+"), text.rfind("-", 11 if " " in text else 0))
    clock, zone = (text[:at], text[at:]) if at > 0 else (text, "")
    if "." in clock:
        clock = clock.rstrip("0")
    return clock + zone.removesuffix(":00")


def _print_float(value: float, float_digits: int) -> str:
    if value != value:
        return "NaN"
    text = repr(value)
    if "inf" in text:
        return text.replace("inf", "Infinity")
    sign, exact, exponent = Decimal(text).normalize().as_tuple()
    assert isinstance(exponent, int)
    digits = "".join(map(str, exact))
    minus = "-" if sign else ""
    point = len(digits) + exponent
    if not any(exact):
        return f"{minus}0"
    if _FLOAT_EXPONENT_MIN <= point - 1 < float_digits:
        return minus + f"{Decimal(text):f}".lstrip("-").removesuffix(".0")
    fraction = f".{digits[1:]}" if digits[1:] else ""
    return f"{minus}{digits[0]}{fraction}e{'-' if point < 1 else '+'}{abs(point - 1):02d}"
