"""Tells the cursor, stretch by stretch, which changes of a batch are settled. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from backend_watcher.delivery.batch import Batch
from backend_watcher.delivery.cursor import Frontier


class Settler:
    """Called with places of a batch, each once; `after` is called when the cursor knows."""

    __slots__ = ("_after", "_count", "_ends", "_frontier", "_shares")

    def __init__(self, frontier: Frontier, batch: Batch, after: Callable[[], None]) -> None:
        self._frontier = frontier
        self._count = len(batch.changes)
        self._shares = batch.shares
        self._ends: list[int] = []
        self._after = after

    def __call__(self, places: Sequence[int]) -> None:
        """Settle the changes at these places, which are in order."""
        if len(places) == self._count:
            for stretch, count in self._shares:
                self._frontier.settle(stretch, count)
        else:
            self._ends = self._ends or list(accumulate(count for _, count in self._shares))
            for place in places:
                self._frontier.settle(self._shares[bisect_right(self._ends, place)][0], 1)
        self._after()
