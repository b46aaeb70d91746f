"""When a batch is complete: by count, bytes or age, whichever is first. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from backend_watcher.events.change import Change
from backend_watcher.events.position import Position


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """`seconds` is how long the first change may wait for company; 0 delivers what is there at once."""

    changes: int = 1000
    size_bytes: int = 4 * 1024 * 1024
    seconds: float = 0.0


@dataclass(slots=True)
class Run:
    """Changes of one stretch of the journal in one lane, and when they came."""

    stretch: Position
    changes: Sequence[Change]
    since: float


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes to be delivered together, and how many of them belong to each stretch, in order."""

    changes: Sequence[Change]
    shares: tuple[tuple[Position, int], ...]


class LaneQueue:
    """What waits in one lane."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._runs: deque[Run] = deque()
        self._changes = 0
        # Counted only while a queue may wait for company: otherwise it is due whatever it holds.
        self._waits = limits.seconds > 0
        self._size_bytes = 0

    def __len__(self) -> int:
        return self._changes

    def put(self, run: Run) -> None:
        """Add changes at the end."""
        self._runs.append(run)
        self._changes += len(run.changes)
        if self._waits:
            self._size_bytes += sum(change.size_bytes for change in run.changes)

    def due(self, now: float, draining: bool) -> float | None:
        """Return in how many seconds a batch is to be taken: 0 at once, None where nothing waits."""
        if not self._runs:
            return None
        full = self._changes >= self._limits.changes or self._size_bytes >= self._limits.size_bytes
        if draining or full or not self._waits:
            return 0.0
        return max(0.0, self._runs[0].since + self._limits.seconds - now)

    def take(self) -> Batch:
        """Take the next batch off the front: at least one change, within the limits otherwise."""
        batch, used = self._take()
        self._changes -= len(batch.changes)
        if self._waits:
            self._size_bytes -= used
        return batch

    def _take(self) -> tuple[Batch, int]:
        """Return the batch and its bytes."""
        limit = self._limits.size_bytes
        taken: list[Change] = []
        shares: list[tuple[Position, int]] = []
        room = limit
        while self._runs and len(taken) < self._limits.changes and room > 0:
            run = self._runs[0]
            count, used = _fit(run.changes, self._limits.changes - len(taken), room, first=not taken)
            if not count:
                break
            room -= used
            shares.append((run.stretch, count))
            if count == len(run.changes):
                self._runs.popleft()
                part = run.changes
            else:
                part = run.changes[:count]
                run.changes = run.changes[count:]
            if not taken and count == len(part) and (not self._runs or room <= 0):
                return Batch(part, tuple(shares)), limit - room
            taken.extend(part)
        return Batch(taken, tuple(shares)), limit - room


def _fit(changes: Sequence[Change], count: int, room: int, *, first: bool) -> tuple[int, int]:
    """Return how many changes fit, and their bytes; a first change always fits, however large."""
    used = 0
    for number, change in enumerate(changes[:count]):
        size = change.size_bytes
        if used + size > room and not (first and number == 0):
            return number, used
        used += size
    return min(count, len(changes)), used
