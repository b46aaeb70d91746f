"""
Text form becomes Python values: numbers, strings, bytes, uuid.

The server writes what its output functions print under the session settings the capture room fixes. Every
function here takes the bytes of one value and raises ProtocolError, nothing else.
"""

from __future__ import annotations

from binascii import a2b_hex
from decimal import Decimal
from uuid import UUID

from backend_watcher.decode.values_own import malformed


def load_bool(data: bytes) -> bool:
    """Load `t` or `f`."""
    if data == b"t":
        return True
    if data == b"f":
        return False
    raise malformed("bool", data)


def load_int(data: bytes) -> int:
    """Load any integer type; an absurdly long one is refused rather than computed."""
    try:
        return int(data)
    except ValueError:
        raise malformed("integer", data) from None


def load_float(data: bytes) -> float:
    """Load float4 or float8, with NaN and the infinities; a float4 is the shortest number that names it."""
    try:
        return float(data)
    except ValueError:
        raise malformed("float", data) from None


def load_numeric(data: bytes) -> Decimal:
    """Load a numeric with every digit and its scale, NaN and the infinities."""
    try:
        return Decimal(data.decode())
    except (ArithmeticError, ValueError):
        raise malformed("numeric", data) from None


def load_text(data: bytes) -> str:
    """
    Load a string, and any type without a Python value of its own.

    A database with encoding SQL_ASCII may hold bytes that are no UTF-8: they become lone surrogates, and
    `value.encode(errors="surrogateescape")` gives the bytes back.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape")


def load_bytea(data: bytes) -> bytes:
    """Load the two characters that announce hexadecimal, then the digits (bytea_output hex)."""
    if data[:2] != b"\\x":
        raise malformed("bytea", data)
    try:
        return a2b_hex(data[2:])
    except ValueError:
        raise malformed("bytea", data) from None


def load_uuid(data: bytes) -> UUID:
    """Load a uuid."""
    try:
        return UUID(data.decode())
    except ValueError:
        raise malformed("uuid", data) from None
