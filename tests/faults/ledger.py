"""
The judge, written apart from the product: what the source committed, told by a slot of its own.

A second slot with PostgreSQL's own `test_decoding`, made before the load begins; nothing of it is shared with
what it judges. Create it, start the watcher, and begin the load when the watcher streams: all of it is owed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import psycopg

SLOT = "the_ledger"
_CHANGE = re.compile(r"table (?P<table>.+?): (?P<operation>INSERT|UPDATE|DELETE|TRUNCATE): (?P<columns>.*)", re.DOTALL)
_COLUMN = re.compile(r"(\"(?:[^\"]|\"\")+\"|\w+)\[(?:[^\[\]]|\[\])+\]:('(?:[^']|'')*'|\S+)", re.DOTALL)


class Fact(NamedTuple):
    """A change as it was committed; version and balance of a delete are -1 and 0."""

    table: str
    operation: str
    key: int
    version: int
    balance: int


class Entry(NamedTuple):
    """A fact, and the transaction it belongs to."""

    xid: int
    fact: Fact


class Ledger:
    """Everything that was committed on some tables since it was made, in commit order."""

    def __init__(
        self, connection: psycopg.Connection, tables: Iterable[str] = ("items", "checking", "savings")
    ) -> None:
        """`connection` has to be in autocommit mode, and stays the caller's."""
        self._connection = connection
        self._tables = set(tables)
        self.entries: list[Entry] = []
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", [SLOT])

    def use(self, connection: psycopg.Connection) -> None:
        """Go on over another connection: the server was started again."""
        self._connection = connection

    def read(self) -> list[Entry]:
        """Return all that was committed so far."""
        # Taken and remembered in two steps: a connection that breaks in between must not lose them.
        upto = self._connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
        query = "SELECT xid::text::bigint, data FROM {} (%s, %s, NULL, 'include-xids', '0', 'skip-empty-xacts', '1')"
        rows = self._connection.execute(query.format("pg_logical_slot_peek_changes"), [SLOT, upto[0]]).fetchall()
        found = [entry for xid, data in rows if (entry := self._entry(xid, data)) is not None]
        self.entries += found
        self._connection.execute("SELECT pg_replication_slot_advance(%s, %s)", [SLOT, upto[0]])
        return self.entries

    def facts(self) -> list[Fact]:
        """Return what was committed so far, without its transactions."""
        return [entry.fact for entry in self.read()]

    def drop(self) -> None:
        """Remove the slot."""
        self._connection.execute("SELECT pg_drop_replication_slot(%s)", [SLOT])

    def _entry(self, xid: int, data: str) -> Entry | None:
        match = _CHANGE.fullmatch(data)
        if match is None or match["operation"] == "TRUNCATE":
            return None
        table = match["table"].rpartition(".")[2]
        if table not in self._tables:
            return None
        values = dict(_COLUMN.findall(match["columns"].rpartition("new-tuple: ")[2]))
        version, balance = int(values.get("version", -1)), int(values.get("balance", 0))
        if match["operation"] == "DELETE":
            version, balance = -1, 0
        return Entry(xid, Fact(table, match["operation"].lower(), int(values["id"]), version, balance))
