"""
An event loop whose time jumps: nothing really waits, and the same program runs the same way every time.

    run(main)    # a minute of retries and timeouts takes as long as the work in between

When nothing is ready the time is moved to the next timer. What is ready runs in the order in which it became so. There
are no sockets and no threads here; where every task waits for another, `Stuck` says so at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Stuck(Exception):
    """Nothing is ready and no timer runs: every task waits for ever."""


class _Jump:
    """Stands where a loop waits for the world, and moves its time instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Stuck("every task waits for another")
        self._loop.jump(timeout)
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop with a time of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = _Jump(self)
        # Timers a nanosecond apart are one after the other, not the same: no larger than a rounding error.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Return how much time has passed here, in seconds."""
        return self._now

    def jump(self, seconds: float) -> None:
        """Let time pass."""
        self._now += max(seconds, 0.0)

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""


class VirtualClock:
    """A Clock that goes with the loop it is asked in."""

    def now(self) -> float:
        """Return the loop's time."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Wait, which takes no time."""
        await asyncio.sleep(seconds)


async def let_pass(seconds: float) -> None:
    """Let virtual time pass. In a real loop it would be real."""
    if not isinstance(asyncio.get_running_loop(), VirtualLoop):
        raise TypeError("this loop has no time of its own; use `run`")
    await asyncio.sleep(seconds)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a loop of its own. Raises Stuck, and what it raises."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        try:
            _end(loop)
        finally:
            loop.close()


def _end(loop: VirtualLoop) -> None:
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
