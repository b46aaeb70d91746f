"""The sequences behind the columns of tables: read on either side, and let go on behind a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend_watcher.events.table import qualify
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.queries import fetch_all


@dataclass(frozen=True, slots=True)
class Numbers:
    """
    A sequence that gives a column its numbers; `place` is that of the table in what was asked.

    `last_value` is the last number that was given, None for none yet, or where our role may not see it.
    """

    place: int
    column: str
    oid: int
    schema: str
    name: str
    increment: int
    readable: bool
    writable: bool
    last_value: int | None

    @property
    def full_name(self) -> str:
        """The sequence's name for people."""
        return qualify(self.schema, self.name)


async def sequences_of(conn: Connection, tables: Sequence[tuple[str, str]]) -> list[Numbers]:
    """Return the sequences of tables, given as schema and name. Raises SourceErrors."""
    rows = await fetch_all(
        conn, "sequences_of_columns", schemas=[schema for schema, _ in tables], names=[name for _, name in tables]
    )
    return [Numbers(**row) for row in rows]


async def go_on_behind(conn: Connection, oid: int, last_value: int) -> bool:
    """Let a sequence go on behind a number; False where it is there, or beyond. Not undone by a rollback."""
    return bool(await fetch_all(conn, "sequence_forward", oid=oid, last_value=last_value))
