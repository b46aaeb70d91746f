"""
Binary form becomes Python values: numbers, bytes, uuid; the same values the text form gives.

The forms are those of the server's `*send` functions: network byte order, fixed sizes, IEEE floats, a numeric
as groups of four decimal digits. Every function raises ProtocolError, nothing else.
"""

from __future__ import annotations

from decimal import Decimal
from struct import Struct, pack, unpack
from struct import error as StructError  # noqa: N812
from uuid import UUID

from backend_watcher.decode.values_own import malformed
from backend_watcher.decode.values_text import load_text

_unpack_int2 = Struct(">h").unpack
_unpack_int4 = Struct(">i").unpack
_unpack_int8 = Struct(">q").unpack
_unpack_unsigned4 = Struct(">I").unpack
_unpack_unsigned8 = Struct(">Q").unpack
_unpack_float4 = Struct(">f").unpack
_unpack_float8 = Struct(">d").unpack
_unpack_numeric = Struct(">HhHH").unpack_from

_NUMERIC_HEADER_BYTES = 8
_NUMERIC_GROUP = 10_000
_NUMERIC_SCALE_MAX = 0x3FFF
_NUMERIC_SIGNS = {0x0000: "", 0x4000: "-"}
_NUMERIC_SPECIAL = {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}
_FLOAT4_NORMAL_MIN = 2.0**-126
_FLOAT4_DIGITS, _FLOAT4_DIGITS_MAX = 6, 9


def load_bool(data: bytes) -> bool:
    """Load one byte, 1 or 0."""
    if data == b"\x01":
        return True
    if data == b"\x00":
        return False
    raise malformed("bool", data)


def load_int2(data: bytes) -> int:
    """Load an int2."""
    try:
        return int(_unpack_int2(data)[0])
    except StructError:
        raise malformed("int2", data) from None


def load_int4(data: bytes) -> int:
    """Load an int4."""
    try:
        return int(_unpack_int4(data)[0])
    except StructError:
        raise malformed("int4", data) from None


def load_int8(data: bytes) -> int:
    """Load an int8."""
    try:
        return int(_unpack_int8(data)[0])
    except StructError:
        raise malformed("int8", data) from None


def load_unsigned4(data: bytes) -> int:
    """Load an oid, xid or cid."""
    try:
        return int(_unpack_unsigned4(data)[0])
    except StructError:
        raise malformed("unsigned 32-bit number", data) from None


def load_unsigned8(data: bytes) -> int:
    """Load an xid8."""
    try:
        return int(_unpack_unsigned8(data)[0])
    except StructError:
        raise malformed("unsigned 64-bit number", data) from None


def load_float8(data: bytes) -> float:
    """Load a float8."""
    try:
        return float(_unpack_float8(data)[0])
    except StructError:
        raise malformed("float8", data) from None


def load_float4(data: bytes) -> float:
    """
    Load a float4 as the shortest decimal number that names it, which is what the server prints: 0.1.

    Widened bit by bit it would be 0.10000000149011612, and text and binary would disagree.
    """
    try:
        value = float(_unpack_float4(data)[0])
    except StructError:
        raise malformed("float4", data) from None
    # Six digits always name a normal number that has six or fewer; a subnormal one may need fewer still.
    digits = _FLOAT4_DIGITS if abs(value) >= _FLOAT4_NORMAL_MIN else 1
    while digits <= _FLOAT4_DIGITS_MAX:
        short = float(f"{value:.{digits}g}")
        if _names_float4(short, data):
            return short
        digits += 1
    return value


def _names_float4(value: float, data: bytes) -> bool:
    try:
        if pack(">f", value) != data:
            return False
    except OverflowError:
        return False
    # A number half-way between two float4 reads back only by rounding to even; the server does not print it.
    middle = (unpack(">Q", pack(">d", value))[0] & 0x1FFF_FFFF) == 0x1000_0000
    return not middle


def load_numeric(data: bytes) -> Decimal:
    """Load a numeric: groups of four digits, the weight of the first, a sign, the scale to print."""
    try:
        count, weight, sign, scale = _unpack_numeric(data)
        groups = unpack(f">{count}H", data[_NUMERIC_HEADER_BYTES:])
    except StructError:
        raise malformed("numeric", data) from None
    if sign in _NUMERIC_SPECIAL:
        return Decimal(_NUMERIC_SPECIAL[sign])
    minus = _NUMERIC_SIGNS.get(sign)
    if minus is None or scale > _NUMERIC_SCALE_MAX or (groups and max(groups) >= _NUMERIC_GROUP):
        raise malformed("numeric", data)
    digits = ("%04d" * count) % groups
    point = (weight + 1) * 4
    if point > 0:
        digits = digits.ljust(point, "0")
        whole, fraction = digits[:point], digits[point:]
    else:
        whole, fraction = "0", "0" * -point + digits
    return Decimal(f"{minus}{whole}.{fraction[:scale].ljust(scale, '0')}")


def load_bytea(data: bytes) -> bytes:
    """Return the bytes."""
    return data


def load_char(data: bytes) -> str:
    """Load a "char", one byte: NUL is printed as nothing, and a byte above 127 as an octal escape."""
    if len(data) != 1:
        raise malformed('"char"', data)
    byte = data[0]
    if byte >= 0x80:
        return f"\\{byte:03o}"
    return chr(byte) if byte else ""


def load_uuid(data: bytes) -> UUID:
    """Load sixteen bytes."""
    try:
        return UUID(bytes=data)
    except ValueError:
        raise malformed("uuid", data) from None


def load_versioned_text(data: bytes) -> str:
    """Load a string behind a version byte, such as a jsonpath."""
    if data[:1] != b"\x01":
        raise malformed("versioned text", data)
    return load_text(data[1:])
