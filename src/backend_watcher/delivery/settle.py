"""Tells the cursor, stretch by stretch, which changes of a batch are settled. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from backend_watcher.delivery.batch import Batch
from backend_watcher.delivery.cursor import Frontier


class Settler:
    """Called with places of a batch, each once; `after` is told the bytes of the changes there."""

    __slots__ = ("_after", "_changes", "_ends", "_frontier", "_shares")

    def __init__(self, frontier: Frontier, batch: Batch, after: Callable[[int], None]) -> None:
        self._frontier = frontier
        self._changes = batch.changes
        self._shares = batch.shares
        self._ends = list(accumulate(count for _, count in batch.shares))
        self._after = after

    def __call__(self, places: Sequence[int]) -> None:
        """Settle the changes at these places, which are in order."""
        changes = self._changes
        if len(places) == len(changes):
            for stretch, count in self._shares:
                self._frontier.settle(stretch, count)
            self._after(sum([change.size_bytes for change in changes]))
            return
        for place in places:
            self._frontier.settle(self._shares[bisect_right(self._ends, place)][0], 1)
        self._after(sum([changes[place].size_bytes for place in places]))
