"""
Column bytes become Python values: one function per type, chosen once per column by the type's OID.

    load = load_text_of(1184)
    load(b"2026-07-31 12:00:00+00")

`docs/values.md` lists what becomes what. Text and binary of one value give equal Python values; a type only
the text form is read of is a str there and plain bytes in binary (`is_binary_equal` says which are equal).
"""

from __future__ import annotations

from functools import partial

from backend_watcher.decode import values_binary as binary
from backend_watcher.decode import values_json as json
from backend_watcher.decode import values_print as printed
from backend_watcher.decode import values_text as text
from backend_watcher.decode import values_time as time
from backend_watcher.decode import values_time_binary as time_binary
from backend_watcher.decode.values_array import load_array, load_array_binary
from backend_watcher.decode.values_range import (
    load_multirange,
    load_multirange_binary,
    load_range,
    load_range_binary,
)
from backend_watcher.decode.values_types import TYPES
from backend_watcher.events.table import Load


def load_text_of(type_oid: int) -> Load:
    """Return what turns a type's text form into a Python value; an unknown type gives str."""
    return _TEXT.get(type_oid, text.load_text)


def load_binary_of(type_oid: int) -> Load:
    """Return what turns a type's binary form into a Python value; an unknown type gives bytes."""
    return _BINARY.get(type_oid, bytes)


def is_binary_equal(type_oid: int) -> bool:
    """Say whether the binary form gives the same value as the text form."""
    return type_oid in _BINARY


# (text, binary) by type name; every other built-in type is a str from text and bytes from binary.
_LOADERS: dict[str, tuple[Load, Load]] = {
    "bool": (text.load_bool, binary.load_bool),
    "int2": (text.load_int, binary.load_int2),
    "int4": (text.load_int, binary.load_int4),
    "int8": (text.load_int, binary.load_int8),
    "oid": (text.load_int, binary.load_unsigned4),
    "xid": (text.load_int, binary.load_unsigned4),
    "cid": (text.load_int, binary.load_unsigned4),
    "xid8": (text.load_int, binary.load_unsigned8),
    "float4": (text.load_float, binary.load_float4),
    "float8": (text.load_float, binary.load_float8),
    "numeric": (text.load_numeric, binary.load_numeric),
    "money": (text.load_text, printed.print_money),
    "text": (text.load_text, text.load_text),
    "varchar": (text.load_text, text.load_text),
    "bpchar": (text.load_text, text.load_text),
    "name": (text.load_text, text.load_text),
    "char": (text.load_text, binary.load_char),
    "xml": (text.load_text, text.load_text),
    "refcursor": (text.load_text, text.load_text),
    "jsonpath": (text.load_text, binary.load_versioned_text),
    "bytea": (text.load_bytea, binary.load_bytea),
    "json": (json.load_json, json.load_json),
    "jsonb": (json.load_jsonb, json.load_jsonb_binary),
    "date": (time.load_date, time_binary.load_date),
    "time": (time.load_time, time_binary.load_time),
    "timetz": (time.load_timetz, time_binary.load_timetz),
    "timestamp": (time.load_timestamp, time_binary.load_timestamp),
    "timestamptz": (time.load_timestamptz, time_binary.load_timestamptz),
    "interval": (time.load_interval, time_binary.load_interval),
    "uuid": (text.load_uuid, binary.load_uuid),
    "inet": (text.load_text, printed.print_inet),
    "cidr": (text.load_text, printed.print_inet),
    "macaddr": (text.load_text, printed.print_mac),
    "macaddr8": (text.load_text, printed.print_mac),
    "bit": (text.load_text, printed.print_bits),
    "varbit": (text.load_text, printed.print_bits),
    "pg_lsn": (text.load_text, printed.print_lsn),
}

# What a range is a range of; the multirange is called alike.
_SUBTYPES = {"int4": "int4", "int8": "int8", "num": "numeric", "ts": "timestamp", "tstz": "timestamptz", "date": "date"}

# Partial, not closures: a table may travel to another process, and these can be pickled.
for _name, _subtype in _SUBTYPES.items():
    _from_text, _from_binary = _LOADERS[_subtype]
    _LOADERS[f"{_name}range"] = partial(load_range, _from_text), partial(load_range_binary, _from_binary)
    _LOADERS[f"{_name}multirange"] = partial(load_multirange, _from_text), partial(load_multirange_binary, _from_binary)

_TEXT: dict[int, Load] = {}
_BINARY: dict[int, Load] = {}

for _name, (_oid, _array_oid) in TYPES.items():
    _load_text, _load_binary = _LOADERS.get(_name, (text.load_text, None))
    _TEXT[_oid] = _load_text
    _TEXT[_array_oid] = partial(load_array, _load_text, _array_oid, b";" if _name == "box" else b",")
    if _load_binary is not None:
        _BINARY[_oid] = _load_binary
        _BINARY[_array_oid] = partial(load_array_binary, _load_binary, _oid, _array_oid)
