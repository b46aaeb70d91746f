"""A clock that a test owns, and an observer that remembers what it was told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import NamedTuple

from backend_watcher.contracts import HeldKey
from backend_watcher.events.position import Position
from backend_watcher.events.schema_change import SchemaChange

PATIENCE_SECONDS = 30.0
"""How long a test waits for something that should have come at once."""


class OwnedClock:
    """
    A Clock that stands still until `advance`; with `free_running`, every sleep moves it on and ends at once.

    `sleeps` holds the seconds of every sleep asked for.
    """

    def __init__(self, now: float = 0.0, *, free_running: bool = False) -> None:
        self._now = now
        self._free_running = free_running
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self._asleep = asyncio.Event()
        self.sleeps: list[float] = []

    def now(self) -> float:
        """Return the seconds the test wants it to be."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was advanced that far."""
        self.sleeps.append(seconds)
        if self._free_running:
            self._now += seconds
            await asyncio.sleep(0)
            return
        sleeper = (self._now + seconds, asyncio.get_running_loop().create_future())
        self._sleepers.append(sleeper)
        self._asleep.set()
        try:
            await sleeper[1]
        finally:
            self._sleepers.remove(sleeper)

    async def wait_for_sleeper(self) -> None:
        """Return when somebody sleeps."""
        while not self._sleepers:
            self._asleep.clear()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._asleep.wait()

    def advance(self, seconds: float) -> None:
        """Let time pass, and wake those who slept long enough."""
        self._now += seconds
        for until, future in self._sleepers:
            if until <= self._now and not future.done():
                future.set_result(None)


class Captured(NamedTuple):
    """What `captured` was told."""

    changes: int
    size_bytes: int
    lsn: int


class SourceState(NamedTuple):
    """What `source_state` was told."""

    state: str
    detail: str


class SchemaChanged(NamedTuple):
    """What `schema_changed` was told."""

    change: SchemaChange


class Delivered(NamedTuple):
    """What `delivered` was told."""

    subscription: str
    changes: int
    seconds: float
    commit_micros: int


class Failed(NamedTuple):
    """What `failed` was told."""

    subscription: str
    error: BaseException
    attempt: int
    retry_seconds: float | None


class Skipped(NamedTuple):
    """What `skipped` was told."""

    subscription: str
    position: Position
    reason: str


class HeldTold(NamedTuple):
    """What `held` was told."""

    subscription: str
    key: HeldKey


class Released(NamedTuple):
    """What `released` was told."""

    subscription: str
    key_number: int


class SubscriptionState(NamedTuple):
    """What `subscription_state` was told."""

    subscription: str
    state: str
    detail: str


class Settled(NamedTuple):
    """What `settled` was told."""

    subscription: str
    position: Position


class SeenBack(NamedTuple):
    """What `read_back` was told."""

    subscription: str
    within_seconds: float
    visible: int
    missed: int


class Drift(NamedTuple):
    """What `drift` was told."""

    subscription: str
    table: str
    kind: str
    persists: bool


class Verified(NamedTuple):
    """What `verified` was told."""

    subscription: str
    verdict: str
    detail: str


Told = (
    Captured
    | SourceState
    | SchemaChanged
    | Delivered
    | Failed
    | Skipped
    | HeldTold
    | Released
    | SubscriptionState
    | Settled
    | SeenBack
    | Drift
    | Verified
)


class RecordingObserver:
    """An Observer that keeps all it is told in `told`, in order, and wakes who waits for it."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.slots: list[tuple[int, int | None]] = []
        self._lock = threading.Lock()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    @property
    def states(self) -> list[str]:
        """The states of the source, in order."""
        return [told.state for told in self.told if isinstance(told, SourceState)]

    @property
    def schema_changes(self) -> list[SchemaChange]:
        """Every difference of a watched table, in order."""
        return [told.change for told in self.told if isinstance(told, SchemaChanged)]

    @property
    def failures(self) -> list[Failed]:
        """Every failed delivery, in order."""
        return [told for told in self.told if isinstance(told, Failed)]

    @property
    def delivered_changes(self) -> int:
        """How many changes the sinks took."""
        return sum(told.changes for told in self.told if isinstance(told, Delivered))

    async def wait_for(self, condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
        """Return when `condition` holds; it is looked at whenever something is told. Raises TimeoutError."""
        waiter = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiting.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await waiter[1].wait()
                    waiter[1].clear()
        finally:
            with self._lock:
                self._waiting.remove(waiter)

    def _keep(self, told: Told) -> None:
        with self._lock:
            self.told.append(told)
            for loop, event in self._waiting:
                loop.call_soon_threadsafe(event.set)

    def captured(self, changes: int, size_bytes: int, lsn: int) -> None:
        """Keep it."""
        self._keep(Captured(changes, size_bytes, lsn))

    def source_state(self, state: str, detail: str) -> None:
        """Keep it."""
        self._keep(SourceState(state, detail))

    def slot_held(self, held_bytes: int, safe_bytes: int | None) -> None:
        """Keep it apart: how often it is told says nothing."""
        self.slots.append((held_bytes, safe_bytes))

    def schema_changed(self, change: SchemaChange) -> None:
        """Keep it."""
        self._keep(SchemaChanged(change))

    def delivered(self, subscription: str, changes: int, seconds: float, commit_micros: int) -> None:
        """Keep it."""
        self._keep(Delivered(subscription, changes, seconds, commit_micros))

    def failed(self, subscription: str, error: BaseException, attempt: int, retry_seconds: float | None) -> None:
        """Keep it."""
        self._keep(Failed(subscription, error, attempt, retry_seconds))

    def skipped(self, subscription: str, position: Position, reason: str) -> None:
        """Keep it."""
        self._keep(Skipped(subscription, position, reason))

    def held(self, subscription: str, key: HeldKey) -> None:
        """Keep it."""
        self._keep(HeldTold(subscription, key))

    def released(self, subscription: str, key_number: int) -> None:
        """Keep it."""
        self._keep(Released(subscription, key_number))

    def subscription_state(self, subscription: str, state: str, detail: str) -> None:
        """Keep it."""
        self._keep(SubscriptionState(subscription, state, detail))

    def settled(self, subscription: str, position: Position) -> None:
        """Keep it."""
        self._keep(Settled(subscription, position))

    def read_back(self, subscription: str, within_seconds: float, visible: int, missed: int) -> None:
        """Keep it."""
        self._keep(SeenBack(subscription, within_seconds, visible, missed))

    def drift(self, subscription: str, table: str, kind: str, persists: bool) -> None:
        """Keep it."""
        self._keep(Drift(subscription, table, kind, persists))

    def verified(self, subscription: str, verdict: str, detail: str) -> None:
        """Keep it."""
        self._keep(Verified(subscription, verdict, detail))
