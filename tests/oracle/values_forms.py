"""How the tests compare decoded values, and write them for the server to read."""

import json
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from backend_watcher.decode.values_own import PostgresText
from backend_watcher.decode.values_range import Multirange, Range


def same(left: Any, right: Any) -> bool:
    """Equal, of the same type, printed the same: 1.0 is not 1.00, +01 is not UTC, and NaN is NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(map(same, left.values(), right.values()))
    if isinstance(left, float | Decimal | datetime | date | time):
        return str(left) == str(right)
    if isinstance(left, PostgresText):
        return left == right and left.type_oid == right.type_oid
    if isinstance(left, Range | Multirange):
        # repr, because a bound may be NaN.
        return repr(left) == repr(right)
    return bool(left == right)


def dump(value: Any) -> str:
    """Write a value for the server to read, in the plainest way."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    return str(value)


def dump_json(value: Any) -> str:
    if isinstance(value, PostgresText):
        return str(value)
    if isinstance(value, list):
        return "[" + ",".join(map(dump_json, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_string(key)}:{dump_json(item)}" for key, item in value.items()) + "}"
    return str(value) if isinstance(value, Decimal) else _string(value)


def _string(value: Any) -> str:
    # Not as escapes: a database that is not UTF8 may not know what they stand for.
    return json.dumps(value, ensure_ascii=False)


def dump_array(value: Any, element: Any) -> str:
    if isinstance(value, PostgresText):
        return str(value)
    if isinstance(value, list):
        return "{" + ",".join(dump_array(item, element) for item in value) + "}"
    if value is None:
        return "NULL"
    return '"' + element(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
