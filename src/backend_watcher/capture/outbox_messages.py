"""Rows of the outbox become messages, with how each table looked when the row was written."""

from __future__ import annotations

from collections.abc import Sequence

from backend_watcher.decode.outbox import Shape, ShapeColumn, relation_message, row_message, said_message
from backend_watcher.errors import ProtocolError
from backend_watcher.postgres import outbox
from backend_watcher.postgres.connect import Connection
from backend_watcher.postgres.outbox import MESSAGE, OutboxRow


class Messages:
    """Makes the messages of one session; a table is described before its first row, and when it looks otherwise."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._shapes: dict[int, Shape] = {}
        self._told: dict[int, int] = {}

    async def of(self, rows: Sequence[OutboxRow]) -> list[bytes]:
        """Return the messages of some rows of one transaction, in their order. Raises ProtocolError."""
        await self._learn({row.shape for row in rows if row.operation != MESSAGE})
        messages: list[bytes] = []
        for row in rows:
            if row.operation == MESSAGE:
                messages.append(said_message((row.old_row or b"").decode(), row.new_row or b""))
                continue
            shape = self._shapes[row.shape]
            if self._told.get(shape.relation_oid) != shape.number:
                messages.append(relation_message(shape))
                self._told[shape.relation_oid] = shape.number
            messages.append(row_message(row.operation, shape, row.old_row, row.new_row))
        return messages

    async def _learn(self, numbers: set[int]) -> None:
        unknown = sorted(number for number in numbers if number not in self._shapes)
        if not unknown:
            return
        for found in await outbox.shapes(self._connection, unknown):
            columns = tuple(ShapeColumn(name, oid, modifier, not made) for name, oid, modifier, made in found.columns)
            self._shapes[found.shape] = Shape(found.shape, found.relation, found.schema, found.name, columns)
        if missing := [number for number in unknown if number not in self._shapes]:
            # It was written with the row, or before; without it nobody knows what the row means.
            raise ProtocolError(f"the outbox has no shape {missing[0]}", message_type="outbox")
