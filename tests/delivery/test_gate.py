"""Where deliveries stop: a pause, a full house, a wait before another try, and the end of them all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from backend_watcher.delivery.gate import Draining, Gate
from backend_watcher.testing.fakes import OwnedClock

from .feeding import ticks


class Walker:
    """Somebody on the way through."""

    def __init__(self, way: Awaitable[None]) -> None:
        self.task = asyncio.ensure_future(way)

    async def stands(self) -> bool:
        await ticks(5)
        return not self.task.done()


async def test_open_it_lets_everybody_pass() -> None:
    await Gate(OwnedClock()).passed()


async def test_paused_it_lets_nobody_pass_until_resumed() -> None:
    gate = Gate(OwnedClock())
    gate.pause()
    walkers = [Walker(gate.passed()) for _ in range(3)]
    assert all([await walker.stands() for walker in walkers])
    gate.look_again()
    assert all([await walker.stands() for walker in walkers])
    gate.resume()
    await asyncio.gather(*(walker.task for walker in walkers))


async def test_a_condition_is_looked_at_when_told() -> None:
    gate, room = Gate(OwnedClock()), [0]
    walkers = [Walker(gate.until(lambda least=least: room[0] >= least)) for least in (1, 2)]  # type: ignore[misc]
    assert all([await walker.stands() for walker in walkers])
    room[0] = 1
    gate.look_again()
    assert [await walker.stands() for walker in walkers] == [False, True]
    room[0] = 2
    gate.look_again()
    await asyncio.gather(*(walker.task for walker in walkers))


async def test_drained_nobody_waits_now_or_later() -> None:
    clock = OwnedClock()
    gate = Gate(clock)
    wait = gate.sleep
    gate.pause()
    waiting = [Walker(gate.passed()), Walker(gate.until(lambda: False)), Walker(wait(60.0))]
    assert all([await walker.stands() for walker in waiting])
    gate.drain()
    waiting += [Walker(gate.passed()), Walker(gate.until(lambda: False)), Walker(wait(60.0))]
    for walker in waiting:
        with pytest.raises(Draining):
            await walker.task


async def test_draining_what_is_not_paused_still_passes() -> None:
    gate = Gate(OwnedClock())
    gate.drain()
    await gate.passed()
    await gate.until(lambda: True)


async def test_a_wait_ends_with_its_time_or_with_the_person_who_resumes() -> None:
    clock = OwnedClock()
    gate = Gate(clock)
    wait = gate.sleep
    walker = Walker(wait(60.0))
    assert await walker.stands()
    # What only concerns others, such as room, does not shorten what the other side asked for.
    gate.look_again()
    clock.advance(59.0)
    assert await walker.stands()
    clock.advance(1.0)
    await walker.task
    walker = Walker(wait(60.0))
    assert await walker.stands()
    gate.resume()
    await walker.task
    assert not clock._sleepers
