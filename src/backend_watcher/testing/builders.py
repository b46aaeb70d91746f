"""A table, a row, a change, a transaction with one call each, in the very bytes a server would send."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from backend_watcher.decode.tables import make_table
from backend_watcher.events.change import DELETE, INSERT, READ, TRUNCATE, UPDATE, Change
from backend_watcher.events.row import ABSENT, UNCHANGED
from backend_watcher.events.table import Table
from backend_watcher.events.transaction import Stream, Transaction

STREAM = Stream("7000000000000000001", "test_slot")

_CODES = {"insert": INSERT, "update": UPDATE, "delete": DELETE, "truncate": TRUNCATE, "read": READ}
_OIDS = {"bool": 16, "bytea": 17, "int8": 20, "int4": 23, "text": 25, "json": 114, "float8": 701}
_OIDS |= {"date": 1082, "timestamptz": 1184, "numeric": 1700, "uuid": 2950, "jsonb": 3802}


def table(
    name: str = "public.products",
    columns: Mapping[str, str] | None = None,
    key: Sequence[str] = ("id",),
    *,
    replica_identity: str = "d",
    relation_oid: int = 16384,
) -> Table:
    """Make a table; `columns` maps names to types such as `int8`, `text`, `numeric`."""
    wished = columns if columns is not None else {"id": "int8", "name": "text", "stock": "int4"}
    schema, _, bare = name.rpartition(".")
    identity = set(wished) if replica_identity == "f" else set(key)
    described = [(column, _OIDS[kind], -1, column in identity) for column, kind in wished.items()]
    return make_table(relation_oid, schema or "public", bare, replica_identity, described, key)


def transaction(commit_lsn: int = 0x1000, commit_micros: int = 0, xid: int = 700) -> Transaction:
    """Make a transaction of the test stream."""
    return Transaction(STREAM, commit_lsn, commit_micros, xid)


def change(
    operation: str = "insert",
    of: Table | None = None,
    *,
    new: Mapping[str, Any] | None = None,
    old: Mapping[str, Any] | None = None,
    lsn: int = 0x1000,
    ordinal: int = 0,
    within: Transaction | None = None,
) -> Change:
    """
    Make one change. Columns not named are NULL in `new`.

    An `old` that names every column is a whole row (REPLICA IDENTITY FULL); otherwise it is a key-only row.
    """
    shape = of if of is not None else table()
    data = b"\0"  # offset 0 says "no row"
    new_at = old_at = 0
    if new is not None:
        new_at = len(data)
        data += tuple_data(shape, new)
    key_only = old is not None and set(old) != set(shape.index_of)
    if old is not None:
        old_at = len(data)
        data += tuple_data(shape, old)
    within = within if within is not None else transaction(lsn)
    return Change(_CODES[operation], shape, within, ordinal, data, new_at, old_at, key_only)


def tuple_data(of: Table, values: Mapping[str, Any]) -> bytes:
    """Write values as TupleData in text format, as `pgoutput` would."""
    parts = [len(of.columns).to_bytes(2, "big")]
    for column in of.columns:
        value = values.get(column.name)
        if value is UNCHANGED:
            parts.append(b"u")
        elif value is None or value is ABSENT:
            parts.append(b"n")
        else:
            text = _text(value)
            parts.append(b"t" + len(text).to_bytes(4, "big") + text)
    return b"".join(parts)


def _text(value: Any) -> bytes:
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if isinstance(value, bytes):
        return b"\\x" + value.hex().encode()
    if isinstance(value, dict | list):
        return json.dumps(value).encode()
    if isinstance(value, datetime):
        return value.isoformat(" ").replace("+00:00", "+00").encode()
    return str(value).encode()
