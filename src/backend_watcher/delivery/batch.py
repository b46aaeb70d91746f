"""
When a batch is complete: by count, bytes or age, whichever is first. Pure.

A queue of whole transactions gives out none in parts, however large, until it is pressed: while the reader waits for
room, nothing more comes. What was begun in parts then ends in parts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice

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
    """What waits in one lane. With `whole` a batch begins and ends between two transactions."""

    def __init__(self, limits: BatchLimits, *, whole: bool = False) -> None:
        self._limits = limits
        self._whole = whole
        self._runs: deque[Run] = deque()
        self._changes = 0
        # How many of them, from the front, belong to transactions whose end is here.
        self._complete = 0
        # The transaction that was given out in part, by its commit LSN.
        self._cut = -1
        # Counted only while a queue may wait for company: otherwise it is due whatever it holds.
        self._waits = limits.seconds > 0
        self._size_bytes = 0

    def __len__(self) -> int:
        return self._changes

    def put(self, run: Run) -> None:
        """Add changes at the end."""
        if self._whole:
            self._find_end(run.changes)
        self._runs.append(run)
        self._changes += len(run.changes)
        if self._waits:
            self._size_bytes += sum(change.size_bytes for change in run.changes)

    def _find_end(self, changes: Sequence[Change]) -> None:
        """Note what the changes that come now say about the end of transactions."""
        last = changes[-1].transaction.commit_lsn
        if self._runs and changes[0].transaction.commit_lsn != self._last_lsn:
            self._complete = self._changes
        if changes[0].transaction.commit_lsn != last:
            at = len(changes) - 1
            while changes[at - 1].transaction.commit_lsn == last:
                at -= 1
            self._complete = self._changes + at

    @property
    def _last_lsn(self) -> int:
        return self._runs[-1].changes[-1].transaction.commit_lsn

    def came_to(self, lsn: int) -> None:
        """Note that everything committed before `lsn` was put here."""
        if self._whole and self._runs and self._last_lsn < lsn:
            self._complete = self._changes

    def due(self, now: float, draining: bool, *, pressed: bool = False) -> float | None:
        """
        Return in how many seconds a batch is to be taken: 0 at once, None where nothing waits, or nothing whole.

        `pressed` says that nothing more will be put here until something is taken.
        """
        if not self._runs:
            return None
        if self._whole and not self._complete and not self._goes_on:
            if not pressed:
                return None
            self._cut = self._runs[0].changes[0].transaction.commit_lsn
        full = self._changes >= self._limits.changes or self._size_bytes >= self._limits.size_bytes
        if draining or full or not self._waits:
            return 0.0
        return max(0.0, self._runs[0].since + self._limits.seconds - now)

    @property
    def _goes_on(self) -> bool:
        """Say that the front is the rest of a transaction that was given out in part."""
        return self._runs[0].changes[0].transaction.commit_lsn == self._cut

    def take(self) -> Batch:
        """
        Take the next batch off the front, where one is due: within the limits, but for what cannot be divided.

        That is one change, or a whole transaction.
        """
        batch, used = self._take_whole() if self._whole else self._take()
        self._changes -= len(batch.changes)
        self._complete = max(self._complete - len(batch.changes), 0)
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

    def _take_whole(self) -> tuple[Batch, int]:
        """Return a batch of whole transactions, and its bytes."""
        count, used = self._measure_rest() if self._goes_on else self._measure()
        taken: list[Change] = []
        shares: list[tuple[Position, int]] = []
        while len(taken) < count:
            run = self._runs[0]
            part = run.changes[: count - len(taken)]
            shares.append((run.stretch, len(part)))
            if len(part) == len(run.changes):
                self._runs.popleft()
            else:
                run.changes = run.changes[len(part) :]
            taken.extend(part)
        return Batch(taken, tuple(shares)), used

    def _measure(self) -> tuple[int, int]:
        """Return how many changes go together, and their bytes."""
        most, room = self._limits.changes, self._limits.size_bytes
        # The last end of a transaction that is within the limits.
        count = used = 0
        number = size_bytes = 0
        lsn = self._runs[0].changes[0].transaction.commit_lsn
        for change in islice(chain.from_iterable(run.changes for run in self._runs), self._complete):
            here = change.transaction.commit_lsn
            if here != lsn:
                if count and (number > most or size_bytes > room):
                    return count, used
                count, used, lsn = number, size_bytes, here
                if number >= most or size_bytes >= room:
                    return count, used
            number += 1
            size_bytes += change.size_bytes
        if count and (number > most or size_bytes > room):
            return count, used
        return number, size_bytes

    def _measure_rest(self) -> tuple[int, int]:
        """Return the same for what goes on in parts: it is not joined to what comes after it."""
        number = size_bytes = 0
        for change in chain.from_iterable(run.changes for run in self._runs):
            more = size_bytes + change.size_bytes
            over = number and (number == self._limits.changes or more > self._limits.size_bytes)
            if over or change.transaction.commit_lsn != self._cut:
                break
            number, size_bytes = number + 1, more
        return number, size_bytes


def _fit(changes: Sequence[Change], count: int, room: int, *, first: bool) -> tuple[int, int]:
    """Return how many changes fit, and their bytes; a first change always fits, however large."""
    used = 0
    for number, change in enumerate(changes[:count]):
        size = change.size_bytes
        if used + size > room and not (first and number == 0):
            return number, used
        used += size
    return min(count, len(changes)), used
