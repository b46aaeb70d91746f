"""Tables from what the server says of them, and from what the journal kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from backend_watcher.decode.values import load_binary_of, load_text_of
from backend_watcher.events.table import Column, Table


def make_table(
    relation_oid: int,
    schema: str,
    name: str,
    replica_identity: str,
    columns: Iterable[tuple[str, int, int, bool]],
    primary_key: Sequence[str],
) -> Table:
    """Make a table; each column is (name, type oid, type modifier, belongs to the replica identity)."""
    made = tuple(
        Column(column, oid, modifier, identity, load_text_of(oid), load_binary_of(oid))
        for column, oid, modifier, identity in columns
    )
    return Table(relation_oid, schema, name, replica_identity, made, tuple(primary_key))


def load_table(dump: bytes) -> Table:
    """Read what `Table.dump` wrote."""
    shape = json.loads(dump)
    return make_table(
        shape["relation_oid"],
        shape["schema"],
        shape["name"],
        shape["replica_identity"],
        [tuple(column) for column in shape["columns"]],
        shape["primary_key"],
    )
