"""The shape of a row at a moment: a table's name, columns, key and replica identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, TypeAlias

Load: TypeAlias = Callable[[bytes], Any]
"""Bytes as the server sent them become a Python value; each type has one for text and one for binary."""


def qualify(schema: str, name: str) -> str:
    """Write `schema.name`; a part with a dot or a leading quote in it is quoted, so that no two tables meet."""
    parts = ['"' + part.replace('"', '""') + '"' if "." in part or part[:1] == '"' else part for part in (schema, name)]
    return ".".join(parts)


class Column:
    """One column: its name, its type, and whether it belongs to the replica identity."""

    __slots__ = ("identity", "load_binary", "load_text", "modifier", "name", "type_oid")

    def __init__(
        self,
        name: str,
        type_oid: int,
        modifier: int,
        identity: bool,
        load_text: Load,
        load_binary: Load,
    ) -> None:
        self.name = name
        self.type_oid = type_oid
        self.modifier = modifier
        # Not the primary key: with REPLICA IDENTITY FULL every column is flagged.
        self.identity = identity
        self.load_text = load_text
        self.load_binary = load_binary

    def __repr__(self) -> str:
        return f"Column({self.name!r}, {self.type_oid})"


class Table:
    """
    A table as it was when its rows were written.

    `primary_key` holds the names of the key columns in key order; it comes from the catalog and is empty
    for a table without one. `version` is a number made from the content: equal shapes have equal versions
    for ever, which is how an old journal block finds the shape it was written with.
    """

    __slots__ = (
        "columns",
        "full_name",
        "identity_indexes",
        "index_of",
        "key_indexes",
        "name",
        "primary_key",
        "relation_oid",
        "replica_identity",
        "schema",
        "version",
    )

    def __init__(
        self,
        relation_oid: int,
        schema: str,
        name: str,
        replica_identity: str,
        columns: tuple[Column, ...],
        primary_key: tuple[str, ...],
    ) -> None:
        self.relation_oid = relation_oid
        self.schema = schema
        self.name = name
        self.full_name = qualify(schema, name)
        # One of d(efault), n(othing), f(ull), i(ndex): pg_class.relreplident.
        self.replica_identity = replica_identity
        self.columns = columns
        self.primary_key = primary_key
        self.index_of = {column.name: number for number, column in enumerate(columns)}
        self.key_indexes = tuple(self.index_of[column] for column in primary_key)
        # Without a primary key the replica identity is all there is to tell rows apart; and where it is another
        # unique index, old rows hold that index's columns and not the primary key.
        identity = tuple(n for n, column in enumerate(columns) if column.identity)
        key_is_sent = bool(self.key_indexes) and (not identity or set(self.key_indexes).issubset(identity))
        self.identity_indexes = self.key_indexes if key_is_sent else identity
        self.version = int.from_bytes(hashlib.blake2b(self.dump(), digest_size=8).digest()) >> 1

    def __repr__(self) -> str:
        return f"Table({self.full_name!r})"

    def in_key(self, index: int) -> bool:
        """Say whether a row that holds the key only has the column at `index`."""
        # Under FULL the server sends no such row; one that was made here has the primary key alone.
        return index in self.identity_indexes if self.replica_identity == "f" else self.columns[index].identity

    def dump(self) -> bytes:
        """Write the shape as JSON, to be kept beside the journal's blocks."""
        shape = {
            "relation_oid": self.relation_oid,
            "schema": self.schema,
            "name": self.name,
            "replica_identity": self.replica_identity,
            "columns": [[c.name, c.type_oid, c.modifier, c.identity] for c in self.columns],
            "primary_key": list(self.primary_key),
        }
        return json.dumps(shape, separators=(",", ":"), ensure_ascii=True).encode()
