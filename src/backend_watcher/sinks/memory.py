"""
Keeps what it was given, and fails as told: for tests and examples.

    sink = Memory()
    sink.script(Reject(), None, FailAfterWrite())   # the first write fails, the second works, the third does both
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from backend_watcher.contracts import Receipt
from backend_watcher.errors import PartlyWritten, SinkRejected, SinkTimeout, SinkUnavailable
from backend_watcher.events.change import Change

KEPT_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Reject:
    """Take the first `settled` changes, and say no to the one after them."""

    message: str = "rejected by a test"
    settled: int = 0


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Take nothing: the other side does not answer."""

    message: str = "unavailable by a test"


@dataclass(frozen=True, slots=True)
class FailAfterWrite:
    """Take everything, and lose the answer."""

    message: str = "the answer was lost by a test"


@dataclass(frozen=True, slots=True)
class Hold:
    """Wait for `release`, then take everything; `reached` says that the write is there."""

    release: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Slow:
    """Take everything, `seconds` later."""

    seconds: float


Fault: TypeAlias = Reject | Unavailable | FailAfterWrite | Hold | Slow


class Memory:
    """
    Keeps the newest `kept_max` changes, in the order they came, in `changes`.

    `receipt` is what it answers; with ACCEPTED, `flush` counts up `flushes`.
    """

    def __init__(self, *, kept_max: int = KEPT_MAX, receipt: Receipt = Receipt.DURABLE) -> None:
        self.changes: deque[Change] = deque(maxlen=kept_max)
        self.count = 0
        self.batches = 0
        self.flushes = 0
        self.is_open = False
        self._receipt = receipt
        self._script: deque[Fault | None] = deque()
        self._arrived = asyncio.Event()

    def script(self, *faults: Fault | None) -> None:
        """Let the next writes go wrong one after the other; None is a write that works, as all later ones do."""
        self._script.extend(faults)

    async def wait_for(self, count: int) -> None:
        """Return when `count` changes came since the beginning."""
        while self.count < count:
            self._arrived.clear()
            await self._arrived.wait()

    async def open(self) -> None:
        """Nothing to connect."""
        self.is_open = True

    async def close(self) -> None:
        """Keep what came; it may still be read."""
        self.is_open = False

    async def flush(self) -> None:
        """Count."""
        self.flushes += 1

    def describe(self) -> Mapping[str, Any]:
        """Say what this is."""
        return {"kind": "memory", "changes": self.count}

    async def write(self, batch: Sequence[Change]) -> Receipt:
        """Keep a batch, or do what the script says."""
        fault = self._script.popleft() if self._script else None
        match fault:
            case Reject(message, settled):
                self._keep(batch[:settled])
                raise PartlyWritten(settled, SinkRejected(message))
            case Unavailable(message):
                raise SinkUnavailable(message)
            case FailAfterWrite(message):
                self._keep(batch)
                raise SinkTimeout(message)
            case Hold(release, reached):
                reached.set()
                await release.wait()
            case Slow(seconds):
                await asyncio.sleep(seconds)
        self._keep(batch)
        return self._receipt

    def _keep(self, batch: Sequence[Change]) -> None:
        if not batch:
            return
        self.changes.extend(batch)
        self.count += len(batch)
        self.batches += 1
        self._arrived.set()
