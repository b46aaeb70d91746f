"""A thousand lives in every run, those that once went wrong for ever, and bugs that must not go unnoticed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import pytest

from backend_watcher.delivery.deliver import Deliverer
from backend_watcher.delivery.parked import Keeper
from backend_watcher.delivery.run import SubscriptionLoop
from backend_watcher.events.change import Change
from backend_watcher.events.position import Position
from backend_watcher.testing.virtual import Stuck, VirtualClock, run

from .many import many
from .sink import Violation
from .world import SOMETIMES, simulate

SEEDS = 1000
ONCE_WRONG = (106, 172, 254, 394, 484, 524, 848, 1209)
PLANTED_SEEDS = 60


@pytest.mark.timeout(600)
def test_a_thousand_lives() -> None:
    seen, failed = many(range(SEEDS))
    assert not failed
    assert [name for name in SOMETIMES if not seen[name]] == [], "not everything was explored"


@pytest.mark.parametrize("seed", ONCE_WRONG)
def test_what_once_went_wrong(seed: int) -> None:
    simulate(seed)


def test_a_seed_lives_the_same_life_twice() -> None:
    assert [simulate(seed) for seed in range(5)] == [simulate(seed) for seed in range(5)]


def test_an_hour_takes_no_time_and_what_waits_for_ever_is_said_to() -> None:
    async def hour() -> float:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.Event().wait()
        return VirtualClock().now()

    assert run(hour()) == 3600
    with pytest.raises(Stuck):
        run(asyncio.Event().wait())


def found(*said: str) -> None:
    """Some life ends in a violation that says so."""
    for seed in range(PLANTED_SEEDS):
        try:
            simulate(seed)
        except Violation as violation:
            if any(words in str(violation) for words in said):
                return
    pytest.fail(f"no life of {PLANTED_SEEDS} ended by {said}")


def test_a_cursor_that_moves_before_it_may_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def admit(self: SubscriptionLoop, changes: Sequence[Change], last: Position, *told: Any) -> None:
        self._journal.save_cursor(self.name, last)
        await admit_rightly(self, changes, last, *told)

    admit_rightly = SubscriptionLoop._admit
    monkeypatch.setattr(SubscriptionLoop, "_admit", admit)
    found("the cursor went to")


def test_a_change_that_overtakes_its_held_key_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Keeper, "join", lambda self, change: change)
    monkeypatch.setattr(Keeper, "blocks", lambda self, change: False)
    found("for the first time after", "two batches of one key", "differs at")


def test_a_held_key_that_is_forgotten_in_a_crash_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def load(self: Keeper) -> None:
        """Take up nothing."""

    monkeypatch.setattr(Keeper, "load", load)
    found("for ever", "is given twice", "for the first time after")


def test_a_truncate_that_does_not_follow_what_is_held_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def join_truncate(self: Keeper, truncate: Change) -> None:
        """Follow nobody."""

    monkeypatch.setattr(Keeper, "join_truncate", join_truncate)
    found("differs at")


def test_what_is_settled_before_the_sink_answered_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deliver(self: Deliverer, batch: Sequence[Change], settle: Any) -> None:
        settle(range(len(batch)))
        await deliver_rightly(self, batch, lambda places: None)

    deliver_rightly = Deliverer.deliver
    monkeypatch.setattr(Deliverer, "deliver", deliver)
    found("the cursor went to")
