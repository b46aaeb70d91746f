"""A sink that fails in every way there is, and remembers all that it was ever given."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from backend_watcher.contracts import Receipt
from backend_watcher.delivery.held import Name
from backend_watcher.errors import (
    ConfigError,
    HandlerError,
    HandlerTimeout,
    PartlyWritten,
    Retry,
    SinkFailed,
    SinkGone,
    SinkRejected,
    SinkTimeout,
    SinkUnavailable,
    Skip,
    SomeFailed,
)
from backend_watcher.events.change import DELETE, TRUNCATE, Change
from backend_watcher.events.position import Position
from backend_watcher.testing.virtual import let_pass

FATES = ("partly", "some", "whole", "whole", "nothing", "unknown", "hangs", "slow", "cancels", "lazy", "gone", "stop")


class Violation(AssertionError):
    """Something that must never happen did."""


class Sink:
    """
    Keeps what it was given as a plain copy, where the last write wins.

    `chaos` is how often a write goes wrong, `poison` has the positions that fail whenever they are tried, and with
    `outage` everything fails as if each change were at fault.
    """

    def __init__(self, dice: random.Random, seen: Counter[str]) -> None:
        self._dice = dice
        self._seen = seen
        self._active: list[set[Name]] = []
        self._accepted: list[Change] = []
        self.chaos = dice.choice([0.0, 0.05, 0.2, 0.5])
        self.poison: dict[Position, Exception] = {}
        self.outage = False
        self.rows: dict[Name, Position] = {}
        self.durable: set[Position] = set()
        self.skipped: set[Position] = set()
        self.tied: set[Position] = set()
        self.came: set[tuple[Name, Position]] = set()
        self.newest: dict[Name, Position] = {}
        self.newest_durable: dict[Name, Position] = {}
        self.repeats = 0
        self.failures = 0

    def calm(self) -> None:
        """Work from now on."""
        self.chaos, self.outage = 0.0, False
        self.poison.clear()

    def describe(self) -> dict[str, Any]:
        return {"kind": "simulated"}

    async def open(self) -> None:
        if self._dice.random() < self.chaos:
            raise SinkUnavailable("not yet")

    async def close(self) -> None:
        self._accepted.clear()

    async def flush(self) -> None:
        if self._dice.random() < self.chaos:
            self.failures += 1
            raise SinkUnavailable("the flush failed")
        self._make_durable(self._accepted)

    async def write(self, batch: Sequence[Change]) -> Receipt:
        names = {name for change in batch for name in change.identities()}
        if not batch or any(names & other for other in self._active):
            raise Violation("two batches of one key at once, or an empty one")
        self._active.append(names)
        try:
            if self._dice.random() < 0.5:
                await asyncio.sleep(0)
            return await self._meet(batch)
        except BaseException:
            self.failures += 1
            raise
        finally:
            self._active.remove(names)

    async def _meet(self, batch: Sequence[Change]) -> Receipt:
        if self.outage:
            raise PartlyWritten(0, HandlerError("the database is away"))
        for place, change in enumerate(batch):
            if change.position in self.poison:
                self._keep(batch[:place])
                raise PartlyWritten(place, self._error_at(change, self.poison[change.position]))
        if self._dice.random() >= self.chaos:
            self._keep(batch)
            return Receipt.DURABLE
        return await getattr(self, "_" + self._dice.choice(FATES))(batch)

    def _error_at(self, change: Change, error: Exception) -> Exception:
        if isinstance(error, Skip):
            self.skipped.add(change.position)
            self._cover(change)
            self._seen["skip"] += 1
        return error

    def _cause(self, change: Change) -> Exception:
        kinds = [SinkRejected("no"), SinkUnavailable("gone", after_seconds=self._dice.choice([None, 3.0]))]
        kinds += [HandlerError("bug"), KeyError("bug"), SinkFailed("500"), Retry(2.0), HandlerTimeout("slow")]
        kinds += [SinkTimeout("late"), Skip("not mine")] if self._dice.random() < 0.2 else []
        return self._error_at(change, self._dice.choice(kinds))

    # What may become of a batch

    async def _partly(self, batch: Sequence[Change]) -> Receipt:
        count = self._dice.randrange(len(batch))
        self._keep(batch[:count])
        raise PartlyWritten(count, self._cause(batch[count]))

    async def _some(self, batch: Sequence[Change]) -> Receipt:
        failures: dict[int, BaseException] = {}
        failed: set[Name] = set()
        for place, change in enumerate(batch):
            names = set(change.identities())
            if names & failed or self._dice.random() < 0.3 or (place == len(batch) - 1 and not failures):
                failures[place] = self._cause(change)
                failed |= names
            else:
                self._keep([change])
        raise SomeFailed(failures)

    async def _whole(self, batch: Sequence[Change]) -> Receipt:
        self._seen["halved"] += len(batch) > 1
        raise self._dice.choice([KeyError("bug"), HandlerError("bug"), SinkFailed("500"), SinkRejected("no")])

    async def _nothing(self, batch: Sequence[Change]) -> Receipt:
        raise SinkUnavailable("gone")

    async def _unknown(self, batch: Sequence[Change]) -> Receipt:
        self._keep(batch, durable=False)
        self._seen["fail_after_write"] += 1
        raise SinkTimeout("the answer was lost")

    async def _hangs(self, batch: Sequence[Change]) -> Receipt:
        self._keep(batch[: self._dice.randint(0, len(batch))], durable=False)
        self._seen["timeout"] += 1
        await asyncio.Event().wait()
        raise AssertionError

    async def _slow(self, batch: Sequence[Change]) -> Receipt:
        await let_pass(self._dice.random() * 4)
        self._keep(batch)
        return Receipt.DURABLE

    async def _cancels(self, batch: Sequence[Change]) -> Receipt:
        raise asyncio.CancelledError

    async def _lazy(self, batch: Sequence[Change]) -> Receipt:
        self._keep(batch, durable=False)
        self._accepted += batch
        return Receipt.ACCEPTED

    async def _gone(self, batch: Sequence[Change]) -> Receipt:
        self._seen["paused_itself"] += 1
        raise PartlyWritten(0, SinkGone("410"))

    async def _stop(self, batch: Sequence[Change]) -> Receipt:
        raise ConfigError(["no such stream"]) if self._dice.random() < 0.2 else SinkUnavailable("gone")

    # What it holds

    def _keep(self, batch: Sequence[Change], *, durable: bool = True) -> None:
        if durable:
            self._make_durable(batch)
        for change in batch:
            if change.code == TRUNCATE:
                table = change.table.full_name
                self.rows = {name: position for name, position in self.rows.items() if name[0] != table}
                continue
            names = change.identities()
            self._seen["reduced"] += len(names) == 1 and change.position in self.tied
            for name in names:
                self._order(name, change)
                self.rows.pop(name, None)
            if change.code != DELETE:
                self.rows[names[-1]] = change.position

    def _make_durable(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self.durable.add(change.position)
            self._cover(change)

    def _cover(self, change: Change) -> None:
        for name in change.identities():
            self.newest_durable[name] = max(change.position, self.newest_durable.get(name, change.position))

    def _order(self, name: Name, change: Change) -> None:
        """Of each key, what comes for the first time is newer than all that came before."""
        place = (name, change.position)
        if place in self.came:
            self.repeats += not change.replayed
            return
        self.came.add(place)
        if not change.replayed:
            newest = self.newest.get(name)
            if newest is not None and change.position < newest:
                raise Violation(f"{name} got {change.position} for the first time after {newest}")
            self.newest[name] = change.position
