"""
Replica identity: what makes an UPDATE or DELETE of a published table possible at all. Pure.

A table that joins a publication of updates or deletes without one makes every UPDATE and DELETE of the
application fail at once. So nothing in this room publishes such a table.
"""

from __future__ import annotations

from collections.abc import Iterable

from backend_watcher.postgres.catalog import TableFacts
from backend_watcher.postgres.names import quote

ALL_OPERATIONS = frozenset({"insert", "update", "delete", "truncate"})
_IDENTIFYING = frozenset({"update", "delete"})
_PARTS_SHOWN_MAX = 5


def needs_identity(operations: Iterable[str]) -> bool:
    """Say whether publishing these operations asks for a replica identity."""
    return not _IDENTIFYING.isdisjoint(operations)


def fault_of(table: TableFacts) -> str:
    """Say why a table must not be published, in one line."""
    whose = "" if table.unidentified == (table.quoted,) else f" (in {_some(table.unidentified)})"
    reasons = {
        "n": "its replica identity is NOTHING",
        "i": "the index of its replica identity is gone or not valid",
        "d": "its primary key is deferrable" if table.primary_key else "it has no primary key",
    }
    why = reasons.get(table.replica_identity, "it has no replica identity")
    return f"table {table.quoted} must not be published, its UPDATEs and DELETEs would fail: {why}{whose}"


def mend_of(table: TableFacts) -> str:
    """Return statements that mend a missing replica identity, without a change to the columns."""
    wish, comment = "FULL", ""
    if table.replica_identity != "d" and table.primary_key:
        wish = "DEFAULT"
    elif table.candidate_index and table.unidentified == (table.quoted,):
        wish = f"USING INDEX {quote(table.candidate_index)}"
    elif not table.primary_key:
        comment = " -- a PRIMARY KEY would be better"
    return alter_identity(table.unidentified, wish) + comment


def mend_old_values(table: TableFacts) -> str:
    """Return statements after which changes carry the old values of every column."""
    return alter_identity(table.without_old_values, "FULL")


def alter_identity(parts: Iterable[str], wish: str) -> str:
    """Write one statement for each relation that holds rows; its name is quoted already."""
    return " ".join(f"ALTER TABLE {part} REPLICA IDENTITY {wish};" for part in parts)


def _some(parts: tuple[str, ...]) -> str:
    shown = ", ".join(parts[:_PARTS_SHOWN_MAX])
    return shown if len(parts) <= _PARTS_SHOWN_MAX else f"{shown} and {len(parts) - _PARTS_SHOWN_MAX} more"
