"""
Which of many rows have to be read, where only digests of them were compared. Pure.

A range of keys is digested in one query on each side, in *parts* of a few hundred rows that both cut at the source's
keys. A part that is equal on both sides is done. The others are the rows to read: so a row that differs costs one part
more, however large the table is, and no second digest. Parts begin below the first key of the source and end above its
last, with nothing between them, so rows that only the sink has lie in one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend_watcher.verifiable import Bound

PART_ROWS = 250
"""Rows of the source in one part: what one difference makes us read."""

RANGE_ROWS_FIRST, RANGE_ROWS_MAX = 20_000, 200_000
"""Rows of the source in one query, at first and at most."""

QUERY_SECONDS = 0.7
"""What a query is to take; how many rows that are is learned."""


@dataclass(frozen=True, slots=True)
class Part:
    """What the source has above one key and up to another: the number of rows, and the sum of their digests."""

    low: Bound
    high: Bound
    rows: int
    total: int


@dataclass(frozen=True, slots=True)
class Span:
    """Keys that have to be read on both sides, and how many rows the source had there."""

    low: Bound
    high: Bound
    rows: int


def parts_of(low: Bound, found: Sequence[tuple[int, int, Bound]], asked: int) -> list[Part]:
    """
    Make parts of what the source said of the next `asked` rows above `low`: rows, sum and last key of each.

    Where it had fewer rows, the last part has no upper bound: see `ended`.
    """
    if not found:
        return [Part(low, (), 0, 0)]
    is_end = sum(rows for rows, _, _ in found) < asked
    parts = []
    for number, (rows, total, high) in enumerate(found, 1):
        parts.append(Part(low, () if is_end and number == len(found) else high, rows, total))
        low = high
    return parts


def ended(parts: Sequence[Part]) -> bool:
    """Say that nothing comes behind these parts."""
    return not parts[-1].high


def bounds_of(parts: Sequence[Part]) -> list[Bound]:
    """Return what the sink is asked with: the ends of all parts, in order."""
    return [parts[0].low, *(part.high for part in parts)]


def differing(parts: Sequence[Part], there: Sequence[tuple[int, int]], rows_max: int) -> list[Span]:
    """
    Return what has to be read, where the sink has other rows or another sum than the source.

    Neighbours are put together up to `rows_max` rows.
    """
    spans: list[Span] = []
    for part, held in zip(parts, there, strict=True):
        if (part.rows, part.total) == held:
            continue
        last = spans[-1] if spans else None
        if last is not None and last.high == part.low and last.rows + part.rows <= rows_max:
            spans[-1] = Span(last.low, part.high, last.rows + part.rows)
        else:
            spans.append(Span(part.low, part.high, part.rows))
    return spans


def equal(parts: Sequence[Part], there: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return rows and sum of the parts that are equal on both sides."""
    same = [part for part, held in zip(parts, there, strict=True) if (part.rows, part.total) == held]
    return sum(part.rows for part in same), sum(part.total for part in same)


class Pace:
    """How many rows to ask for in one query: whole parts, and at most `rows_max`."""

    def __init__(self, rows_max: int = RANGE_ROWS_MAX) -> None:
        self._rows_max = max(rows_max // PART_ROWS, 1) * PART_ROWS
        self.rows = min(RANGE_ROWS_FIRST, self._rows_max)

    def took(self, rows: int, seconds: float) -> None:
        """Learn from a query; at most twice as many rows are asked for next."""
        wished = rows * QUERY_SECONDS / max(seconds, 0.001)
        self._ask(min(wished, 2 * self.rows) if rows >= self.rows else min(wished, self.rows))

    def was_too_long(self) -> bool:
        """Ask for fewer rows from now on; False where it cannot be fewer."""
        if self.rows == PART_ROWS:
            return False
        self._ask(self.rows / 4)
        return True

    def _ask(self, rows: float) -> None:
        self.rows = min(max(int(rows) // PART_ROWS, 1) * PART_ROWS, self._rows_max)
