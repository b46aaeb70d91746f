"""
What the journal may forget: the oldest blocks first, and never one that a cursor still needs.

- A block is *behind* if it lies wholly at or before the oldest cursor. Without any cursor every block is.
- Behind and older than `retain_seconds`, or behind and beyond `retain_bytes`: forgotten.
- Behind a cursor while the quota leaves no room: forgotten early. A journal that nobody reads yet is not
  shortened for the quota; it waits for its first reader.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from backend_watcher.events.position import Position


@dataclass(frozen=True, slots=True)
class Retention:
    """How much is kept, in bytes of payload and in seconds; None sets no limit."""

    quota_bytes: int | None = None
    retain_seconds: float | None = None
    retain_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Pressure:
    """What bears on retention at a moment: the oldest cursor, and the bytes somebody waits for."""

    oldest_cursor: Position | None
    shed_bytes: int


def doomed(
    oldest: Iterable[tuple[Position, int, float]],
    size_bytes: int,
    rule: Retention,
    pressure: Pressure,
    now: float,
) -> tuple[int, int]:
    """
    Return how many of the oldest blocks to forget, and the bytes that frees.

    `oldest` gives (last position, size, captured at) from the oldest on; `size_bytes` is the size of all.
    """
    count = freed = 0
    for last, size, captured_at in oldest:
        if pressure.oldest_cursor is not None and last > pressure.oldest_cursor:
            break
        expired = rule.retain_seconds is not None and captured_at < now - rule.retain_seconds
        excess = rule.retain_bytes is not None and size_bytes - freed > rule.retain_bytes
        pressed = pressure.oldest_cursor is not None and freed < pressure.shed_bytes
        if not (expired or excess or pressed):
            break
        count += 1
        freed += size
    return count, freed
