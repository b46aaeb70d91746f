"""
What an application wrote into its transaction with `pg_logical_emit_message`.

In the journal and on its way a message is a change of a table that does not exist: an insert, whose key is the prefix,
so that messages of one prefix keep their order. A user's function gets it as a `Message`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from backend_watcher.events.change import Change
from backend_watcher.events.position import Position
from backend_watcher.events.table import qualify
from backend_watcher.events.transaction import Transaction

SCHEMA = "pg_catalog"
NAME = "pg_logical_message"
OWN = "backend_watcher."
"""Messages of this prefix are ours, and for nobody else."""

DDL = f"{OWN}ddl"
"""The prefix of what an event trigger of ours says of a table."""

BACKFILL = f"{OWN}backfill"
"""The prefix of what says where rows that were read from a table take their place in the stream."""

MARK = f"{OWN}mark"
"""The prefix of what somebody writes who waits until the journal has come there; an idle one does so now and then."""

FULL_NAME = qualify(SCHEMA, NAME)
"""What messages are called where tables are named. PostgreSQL lets nobody make a table of this schema."""


class Message:
    """
    A transactional logical message: `prefix`, and `content` as bytes.

    It has a position and an event id like a change, and arrives in its place among the changes of its transaction.
    """

    __slots__ = ("_change",)

    def __init__(self, change: Change) -> None:
        self._change = change

    @property
    def prefix(self) -> str:
        """What says whom it is for."""
        return str(self._change.row["prefix"])

    @property
    def content(self) -> bytes:
        """What it says."""
        return bytes(self._change.row["content"])

    @property
    def text(self) -> str:
        """What it says, as text. Raises UnicodeDecodeError where it is no UTF-8."""
        return self.content.decode()

    def json(self) -> Any:
        """Return what it says, read as JSON. Raises msgspec.DecodeError where it is none."""
        return msgspec.json.decode(self.content)

    @property
    def position(self) -> Position:
        """Its place in the one order."""
        return self._change.position

    @property
    def event_id(self) -> str:
        """The same after every restart."""
        return self._change.event_id

    @property
    def transaction(self) -> Transaction:
        """The transaction that wrote it."""
        return self._change.transaction

    @property
    def commit_time(self) -> datetime:
        """When the source says it committed, in UTC."""
        return self._change.transaction.commit_time

    @property
    def context(self) -> Mapping[str, Any]:
        """What the application said of its transaction; empty if nothing."""
        return self._change.transaction.context

    @property
    def replayed(self) -> bool:
        """Say that it is delivered once more on purpose."""
        return bool(self._change.replayed)

    def __repr__(self) -> str:
        return f"Message({self.prefix!r} at {self.position})"
