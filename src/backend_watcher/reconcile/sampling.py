"""
Which delivered changes are read back, when, and what a look at one says. Pure.

A change is looked at 1 s, 5 s and 60 s after its commit, or soon after that, together with others. It was *visible
within* N seconds if the sink had taken it by then, and the look finds what it made, or what a later change made of
that. So a look that comes a little late does not flatter the figure; one that never comes is not counted.

When it was committed is what the source's clock said, compared with the clock of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from heapq import heappop, heappush

from backend_watcher.events.position import Position
from backend_watcher.events.table import Table
from backend_watcher.verifiable import EXPIRED

LOOKS_SECONDS = (1.0, 5.0, 60.0)
"""So long after its commit a change is looked at."""

LAST_LOOK_SECONDS_MIN = 1.0
"""So long after it was written it is looked at for the last time, at the earliest: it may have come very late."""

SAMPLES_MAX = 10_000
"""Changes of one subscription that are still to be looked at; what is beyond is not sampled."""

NOTHING = b""
_TURN = 0.6180339887498949


class Sampler:
    """
    Chooses places in batches: at most `per_second` a second on average, and a second's worth at once, or one.

    Any change is as likely as any other of its batch. Before `next_at` nothing is chosen, and nobody needs to ask.
    """

    __slots__ = ("_burst", "_per_second", "_tokens", "_turn", "_until", "next_at")

    def __init__(self, per_second: float, now: float) -> None:
        self._per_second = per_second
        self._burst = max(per_second, 1.0)
        self._tokens = self._burst
        self._until = now
        self._turn = 0.0
        self.next_at = now

    def choose(self, count: int, now: float) -> Sequence[int]:
        """Return places in a batch of so many changes, in order."""
        self._tokens = min(self._burst, self._tokens + (now - self._until) * self._per_second)
        self._until = now
        chosen = min(int(self._tokens), count)
        self._tokens -= chosen
        self.next_at = now + max(1.0 - self._tokens, 0.0) / self._per_second
        if not chosen:
            return ()
        self._turn = (self._turn + _TURN) % 1.0
        return [int((number + self._turn) * count / chosen) for number in range(chosen)]


@dataclass(slots=True)
class Sample:
    """
    What a delivered change should have made of one entry; `digest` is NOTHING where none should stand there.

    `committed` and `written` are monotonic seconds. `row` has the texts its row is found by at the source, by column,
    `identity` is the same as changes name it. `look` is the number of the look that comes next.
    """

    name: bytes
    digest: bytes
    table: Table
    position: Position
    committed: float
    written: float
    identity: bytes = b""
    row: Mapping[str, str] = field(default_factory=dict)
    look: int = 0


class Entry(StrEnum):
    """How an entry stands to the change that was looked for in it."""

    THERE = "there"
    NEWER = "newer"
    OLDER = "older"
    OTHER = "other"
    """Something else stands there, and whether it is newer is not known."""


class Seen(StrEnum):
    """What a look says of a change."""

    VISIBLE = "visible"
    MISSED = "missed"
    UNKNOWN = "unknown"


def digest_of(value: bytes | None) -> bytes:
    """Return 16 bytes in place of a value, which may be large; NOTHING in place of none."""
    return NOTHING if value is None else blake2b(value, digest_size=16).digest()


def entry_of(sample: Sample, held: bytes | None, dated: bool, written_at: Position | None) -> Entry:
    """Say how an entry stands; where it is `dated`, `written_at` is the place of the change that wrote it last."""
    if held == EXPIRED or digest_of(held) == sample.digest:
        return Entry.THERE
    if not dated:
        return Entry.OTHER
    return Entry.NEWER if written_at is not None and written_at > sample.position else Entry.OLDER


class Waiting:
    """Samples that are still to be looked at, in the order in which they are due."""

    def __init__(self, looks_seconds: Sequence[float] = LOOKS_SECONDS) -> None:
        self._looks_seconds = tuple(looks_seconds)
        self._due: list[tuple[float, int, Sample]] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._due)

    def add(self, sample: Sample) -> Sequence[int]:
        """Take a new sample; return the looks that need not be made, because it came too late for them."""
        late = []
        while sample.look < self._last and self._too_late(sample):
            late.append(sample.look)
            sample.look += 1
        if len(self._due) < SAMPLES_MAX:
            self._put(sample)
        return late

    def due(self, now: float) -> list[Sample]:
        """Take out those that are to be looked at now."""
        found = []
        while self._due and self._due[0][0] <= now:
            found.append(heappop(self._due)[2])
        return found

    def put_back(self, samples: Sequence[Sample]) -> None:
        """Take back those that could not be looked at: they are due all the same."""
        for sample in samples:
            self._put(sample)

    def looked(self, sample: Sample, entry: Entry) -> tuple[Seen, bool]:
        """
        Say what a look says of a sample, and wait for its next look.

        Also whether this was its last one, and neither its value nor a newer one was found: an older one may persist.
        """
        if self._too_late(sample) or entry is Entry.OLDER:
            seen = Seen.MISSED
        else:
            seen = Seen.UNKNOWN if entry is Entry.OTHER else Seen.VISIBLE
        if sample.look < self._last:
            sample.look += 1
            self._put(sample)
            return seen, False
        return seen, entry in (Entry.OLDER, Entry.OTHER)

    @property
    def _last(self) -> int:
        return len(self._looks_seconds) - 1

    def _too_late(self, sample: Sample) -> bool:
        return sample.written > sample.committed + self._looks_seconds[sample.look]

    def _put(self, sample: Sample) -> None:
        at = sample.committed + self._looks_seconds[sample.look]
        if sample.look == self._last:
            at = max(at, sample.written + LAST_LOOK_SECONDS_MIN)
        self._number += 1
        heappush(self._due, (at, self._number, sample))
