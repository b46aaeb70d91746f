"""A time limit for each call in a run of calls, at a cost for the run and none for the call."""

from __future__ import annotations

import asyncio
from typing import Self

CHECKS = 2
"""How often within the limit the run is looked at: a call is ended after 1 to 1.5 times its limit."""


class Stopwatch:
    """
    Cancels the current task when no call has ended for `seconds`; who counts the calls sets `done`.

    Use as a context manager. After it, `expired` says whether the cancellation was ours; it is taken back then.
    """

    __slots__ = ("_handle", "_loop", "_seconds", "_seen", "_silent", "_task", "done", "expired")

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._seconds = seconds / CHECKS
        self._seen = -1
        self._silent = 0
        self.done = 0
        self.expired = False

    def __enter__(self) -> Self:
        self._handle = self._loop.call_later(self._seconds, self._look)
        return self

    def __exit__(self, *exc: object) -> None:
        self._handle.cancel()
        if self.expired and self._task is not None:
            self._task.uncancel()

    def _look(self) -> None:
        if self.done != self._seen:
            self._seen, self._silent = self.done, 0
        self._silent += 1
        if self._silent > CHECKS:
            self.expired = True
            assert self._task is not None
            self._task.cancel()
            return
        self._handle = self._loop.call_later(self._seconds, self._look)
