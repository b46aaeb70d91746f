"""Whether a subscription may go on: paused by a person or by itself, out of room, or told to drain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from backend_watcher.contracts import Clock


class Draining(Exception):
    """The subscription is to end: what is not delivered stays for the next start."""


class Gate:
    """Where everything that delivers stops and looks before it goes on. All in one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = asyncio.Event()
        self._hurry = asyncio.Event()
        self.paused = False
        self.draining = False

    def pause(self) -> None:
        """Let nobody pass."""
        self.paused = True

    def resume(self) -> None:
        """Let everybody pass."""
        self.paused = False
        self._hurry.set()
        self.look_again()

    def drain(self) -> None:
        """End all waiting, now and later."""
        self.draining = True
        self._hurry.set()
        self.look_again()

    def look_again(self) -> None:
        """Let everybody who waits look at what they wait for."""
        self._changed.set()

    async def passed(self) -> None:
        """Return when not paused. Raises Draining where that will not be in this life."""
        if self.paused:
            await self.until(lambda: not self.paused)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when a condition holds that `look_again` is told of. Raises Draining."""
        while not condition():
            if self.draining:
                raise Draining
            self._changed.clear()
            await self._changed.wait()

    async def sleep(self, seconds: float) -> None:
        """Wait before another try; a person who resumes ends the wait early. Raises Draining."""
        if not self.draining:
            self._hurry.clear()
            waits = [asyncio.ensure_future(self._hurry.wait()), asyncio.ensure_future(self._clock.sleep(seconds))]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        if self.draining:
            raise Draining
