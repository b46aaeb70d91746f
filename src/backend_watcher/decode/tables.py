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


def key_of(
    columns: Iterable[tuple[str, int, int, bool]], replica_identity: str, primary_key: Sequence[str]
) -> tuple[str, ...]:
    """Return what rows of these columns are known by, where the catalog says that this is the primary key now."""
    described = list(columns)
    # Today's key may not fit the shape of then, or a column list leaves it out.
    key = tuple(primary_key) if {name for name, *_ in described}.issuperset(primary_key) else ()
    identity = tuple(name for name, _, _, belongs in described if belongs)
    # With an index as identity old rows name its columns only: a delete could not be told by the primary key.
    return identity if replica_identity == "i" and not set(identity).issuperset(key) else key


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
