"""
Where chunks that were read wait for their watermark, and are judged when the stream brings it.

Capture's own loop runs both the stream and the backfills, so nothing here needs a lock.
"""

from __future__ import annotations

import asyncio
from array import array
from dataclasses import dataclass

from backend_watcher.capture.window import Window
from backend_watcher.decode.chunks import OpenTransaction, RelationMark, expand, pack
from backend_watcher.decode.fetched import without
from backend_watcher.events.change import INSERT, READ, TRUNCATE, Change
from backend_watcher.events.chunk import Chunk
from backend_watcher.events.position import Position
from backend_watcher.events.snapshot import Snapshot
from backend_watcher.events.table import Table
from backend_watcher.events.transaction import Stream

_NOWHERE = Stream("", "")


@dataclass(frozen=True, slots=True)
class Placed:
    """
    What became of a chunk: `rows` were put into the stream, up to `last`, and `stale` ones left out.

    With `again` nothing was: the chunk cannot be judged, and must be read again.
    """

    rows: int = 0
    stale: int = 0
    size_bytes: int = 0
    last: Position | None = None
    again: bool = False


class Placement:
    """A chunk on its way into the stream. It is announced before it is read, and filled after."""

    def __init__(self, content: bytes, window: Window, table: Table) -> None:
        self.content = content
        self.window = window
        self.table = table
        self.data = b""
        self.sizes: list[int] = []
        self.snapshot: Snapshot | None = None
        self.exact = True
        self.altered = False
        self.done: asyncio.Future[Placed] = asyncio.get_running_loop().create_future()

    def fill(self, data: bytes, sizes: list[int], snapshot: Snapshot, *, exact: bool = True) -> None:
        """
        Give it its rows: messages as `fetched_rows` and `gone_rows` make them.

        Without `exact` a row may have a key that is equal to one that is gone, and is written with another text.
        """
        self.data, self.sizes, self.snapshot, self.exact = data, sizes, snapshot, exact

    def judge(self) -> tuple[bytes, list[int], int] | None:
        """
        Return the rows that are true here, and how many are not; None where that cannot be said.

        To be asked when everything that the stream brought before is noted in the window.
        """
        table, snapshot = self.table, self.snapshot
        if snapshot is None or self.altered or self.window.riddles(snapshot):
            return None
        touched = self.window.touched(snapshot, table.full_name)
        if touched.everything:
            return None
        if not touched.keys:
            return self.data, self.sizes, 0
        if not self.exact:
            return None
        marks = [RelationMark(0, table.relation_oid, table.version)]
        payload = pack(_OPEN, marks, array("I", self.sizes), [self.data])
        changes = expand(payload, {table.version: table}, _NOWHERE)
        stale = {number for number, change in enumerate(changes) if change.key_bytes() in touched.keys}
        if stale and not table.primary_key:
            # Rows that are equal cannot be told apart: which of them a transaction meant is not known.
            return None
        data, sizes = without(self.data, self.sizes, stale.__contains__)
        return data, sizes, len(stale)

    def tell(self, placed: Placed) -> None:
        """Say what became of it."""
        if not self.done.done():
            self.done.set_result(placed)


class Placements:
    """The windows that are open and the chunks that are on their way, of one session."""

    def __init__(self) -> None:
        self._windows: dict[str, list[Window]] = {}
        self._expected: dict[bytes, Placement] = {}

    def open(self, table: str, near: int) -> Window:
        """Look from now on at what the stream does to a table. `near` is a 64-bit transaction id of today."""
        window = Window(near)
        self._windows.setdefault(table, []).append(window)
        return window

    def close(self, table: str, window: Window) -> None:
        """Look no more."""
        windows = self._windows.get(table, [])
        if window in windows:
            windows.remove(window)
        if not windows:
            self._windows.pop(table, None)

    def expect(self, content: bytes, window: Window, table: Table) -> Placement:
        """Announce a chunk of a table that belongs where the message with this content comes."""
        placement = self._expected[content] = Placement(content, window, table)
        return placement

    def forget(self, placement: Placement) -> None:
        """Expect it no more; its message may come all the same."""
        self._expected.pop(placement.content, None)

    def take(self, content: bytes) -> Placement | None:
        """Return the chunk that belongs to a message, None where it is not, or no longer, one of ours."""
        return self._expected.pop(content, None)

    def described(self, table: Table) -> None:
        """Note that the stream describes a table: chunks of another shape are from before."""
        for placement in self._expected.values():
            if placement.table.relation_oid == table.relation_oid and placement.table.version != table.version:
                placement.altered = True

    def note(self, chunk: Chunk) -> None:
        """Note what a chunk of the stream does to tables that are being read."""
        if self._windows.keys().isdisjoint(table.full_name for table in chunk.tables):
            return
        tables = {table.version: table for table in chunk.tables}
        for change in expand(chunk.payload, tables, _NOWHERE):
            windows = self._windows.get(change.table.full_name)
            # What was read, or was found not to be there, is nobody's doing.
            if windows and change.code != READ and not change.derived:
                _touch(windows, change)


def _touch(windows: list[Window], change: Change) -> None:
    table, xid = change.table, change.transaction.xid
    for window in windows:
        if change.code == TRUNCATE:
            window.touch_all(xid, table.full_name)
        elif change.code != INSERT or table.primary_key:
            # A new row of a table without a key makes no row stale that is equal to it.
            window.touch(xid, table.full_name, [key for _, key in change.identities()])
        window.ended(xid)


_OPEN = OpenTransaction(0, 0, 0, 0)
