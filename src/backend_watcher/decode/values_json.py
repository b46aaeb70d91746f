"""
json and jsonb become Python objects, without loss.

Integers are `int`, all other numbers `Decimal`: a jsonb number is a numeric, and a float would change
`0.1`, `1e400` and the twentieth digit. The fast path is msgspec; what it refuses and PostgreSQL allows (lone
surrogates, integers of more than 4300 digits, bytes that are no UTF-8) is read again by the slow path.
"""

from __future__ import annotations

import re
from decimal import Decimal
from json import JSONDecoder
from typing import Any, NoReturn

import msgspec

from backend_watcher.decode.values_own import PostgresText, malformed
from backend_watcher.decode.values_text import load_text
from backend_watcher.decode.values_types import TYPES

NESTING_LEVELS_MAX = 200
"""A document nested deeper stays text. Fixed, because what Python's stack can take differs from call to call."""
INTEGER_DIGITS_MAX = 4300
"""A longer integer is a Decimal: turning it into an int takes quadratic time."""

_JSON = TYPES["json"][0]
_JSONB = TYPES["jsonb"][0]
_JSONB_VERSION = b"\x01"
_QUOTE = 34
_OPEN_LIST = 91
_OPEN_OBJECT = 123
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"[]{}'))
_ESCAPE = re.compile(rb"\\.", re.DOTALL)

_decode = msgspec.json.Decoder(float_hook=Decimal).decode


def load_json(data: bytes) -> Any:
    """Load a json value, in text or in binary: they are the same."""
    return _load(data, _JSON)


def load_jsonb(data: bytes) -> Any:
    """Load the text form of a jsonb value."""
    return _load(data, _JSONB)


def load_jsonb_binary(data: bytes) -> Any:
    """Load the binary form of a jsonb value: a version byte, then the text."""
    if data[:1] != _JSONB_VERSION:
        raise malformed("jsonb", data)
    return _load(data[1:], _JSONB)


def _load(data: bytes, type_oid: int) -> Any:
    # Two bytes are the least a level takes, so nearly every document passes by its length.
    if len(data) > 2 * NESTING_LEVELS_MAX and _is_deep(data):
        return PostgresText(load_text(data), type_oid)
    try:
        return _decode(data)
    except (ValueError, ArithmeticError, RecursionError):
        return _load_odd(data, type_oid)


def _is_deep(data: bytes) -> bool:
    limit = NESTING_LEVELS_MAX
    if data.count(b"[") + data.count(b"{") <= limit:
        return False
    if b"\\" in data:
        data = _ESCAPE.sub(b"", data)
    levels = 0
    quoted = False
    for byte in data.translate(None, _NOT_STRUCTURE):
        if byte == _QUOTE:
            quoted = not quoted
        elif quoted:
            continue
        elif byte in (_OPEN_LIST, _OPEN_OBJECT):
            levels += 1
            if levels > limit:
                return True
        else:
            levels -= 1
    return False


def _load_odd(data: bytes, type_oid: int) -> Any:
    text = load_text(data)
    try:
        return _odd.decode(text)
    except (ArithmeticError, RecursionError):
        # An exponent not even Decimal can hold, which the type json (never jsonb) lets through.
        return PostgresText(text, type_oid)
    except ValueError:
        raise malformed("json", data) from None


def _load_integer(text: str) -> int | Decimal:
    if len(text) > INTEGER_DIGITS_MAX:
        return Decimal(text)
    try:
        return int(text)
    except ValueError:
        # The program lowered sys.set_int_max_str_digits.
        return Decimal(text)


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("PostgreSQL's json knows no NaN and no Infinity")


_odd = JSONDecoder(parse_float=Decimal, parse_int=_load_integer, parse_constant=_refuse_constant)
