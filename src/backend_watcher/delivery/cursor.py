"""
The cursor: the highest position below which a subscription owes nothing.

Rule 1: no other file decides how far a cursor may move.
Rule 2: this file is pure. No clock, no I/O, no logging; the same calls give the same position, so every
schedule of deliveries can be tested against a model.
"""

from __future__ import annotations

from collections import deque

from backend_watcher.errors import OutOfOrder, SettledTwice
from backend_watcher.events.position import Position


class Frontier:
    """
    Counts what is owed, stretch by stretch.

    A stretch is a run of the journal that ends at a position; it is opened in order with the number of
    changes in it that are to be delivered, and settled in any order. The cursor passes a stretch when it
    and all before it owe nothing.
    """

    def __init__(self, start: Position) -> None:
        self._cursor = start
        self._opened = start
        self._open: deque[Position] = deque()
        self._owed: dict[Position, int] = {}
        self._bytes: dict[Position, int] = {}
        self._in_flight = 0
        self._in_flight_bytes = 0

    @property
    def cursor(self) -> Position:
        """Everything up to here is settled. Never moves back."""
        return self._cursor

    @property
    def opened_to(self) -> Position:
        """How far the journal was read."""
        return self._opened

    @property
    def in_flight(self) -> int:
        """How many changes are opened and not settled; the loop stops reading at its limit."""
        return self._in_flight

    @property
    def in_flight_bytes(self) -> int:
        """About how large they are: of a stretch that is settled in part, the same share of its bytes counts."""
        return self._in_flight_bytes

    def open(self, last: Position, changes: int, size_bytes: int = 0) -> None:
        """Note that `changes` deliveries are owed in the stretch that ends at `last`. Raises OutOfOrder."""
        if last <= self._opened:
            raise OutOfOrder(f"a stretch ends at {last}, after one that ended at {self._opened}")
        self._opened = last
        self._open.append(last)
        self._owed[last] = changes
        self._in_flight += changes
        if changes and size_bytes:
            self._bytes[last] = size_bytes
            self._in_flight_bytes += size_bytes
        self._advance()

    def settle(self, last: Position, changes: int) -> None:
        """Note `changes` deliveries of the stretch that ends at `last` as done. Raises SettledTwice."""
        owed = self._owed.get(last, 0)
        if changes > owed:
            raise SettledTwice(f"{changes} deliveries settled in the stretch to {last}, which owes {owed}")
        self._owed[last] = owed - changes
        self._in_flight -= changes
        if changes and (size_bytes := self._bytes.get(last)):
            share = size_bytes * changes // owed
            self._in_flight_bytes -= share
            self._bytes[last] = size_bytes - share
        self._advance()

    def _advance(self) -> None:
        while self._open and not self._owed[self._open[0]]:
            self._cursor = self._open.popleft()
            del self._owed[self._cursor]
            self._bytes.pop(self._cursor, None)
