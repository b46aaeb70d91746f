"""A thread with an event loop of its own, where no handler of another loop can hold it up."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

STOP_SECONDS_MAX = 10.0
"""How long a thread gets to end once it is told to."""


class LoopThread:
    """
    Start it, await `finished`, `stop` it. `finished` holds the error that ended `run`, if one did.

    `run` is called, and awaited, in the thread.
    """

    def __init__(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        self._run = run
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._running = threading.Event()
        self._outer = asyncio.get_running_loop()
        self.finished: asyncio.Future[None] = self._outer.create_future()

    @property
    def name(self) -> str:
        """The name of the thread."""
        return self._thread.name

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    async def stop(self) -> None:
        """Cancel what runs and wait for the thread. May be called twice."""
        if not self._thread.is_alive():
            return
        await asyncio.to_thread(self._running.wait, STOP_SECONDS_MAX)
        if self._loop is not None and self._task is not None:
            # The loop may have ended by itself in between.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._task.cancel)
        await asyncio.to_thread(self._thread.join, STOP_SECONDS_MAX)

    async def ask(self, question: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in the thread's loop and return what it gives. Raises RuntimeError where it has ended."""
        if not self._running.is_set():
            await asyncio.to_thread(self._running.wait, STOP_SECONDS_MAX)
        if self._loop is None or self.finished.done():
            raise RuntimeError(f"thread {self.name} has ended")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(question(), self._loop))

    def _main(self) -> None:
        error: BaseException | None = None
        try:
            asyncio.run(self._begin())
        except asyncio.CancelledError:
            pass
        except BaseException as failure:  # noqa: BLE001 it is raised where `finished` is awaited
            error = failure
        self._running.set()
        # There may be nobody who waits any more.
        with contextlib.suppress(RuntimeError):
            self._outer.call_soon_threadsafe(self._finish, error)

    async def _begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        running = self._run()
        self._running.set()
        await running

    def _finish(self, error: BaseException | None) -> None:
        if self.finished.done():
            return
        if error is None:
            self.finished.set_result(None)
        else:
            self.finished.set_exception(error)


def set_threadsafe(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    """Set an event of another thread's loop, which may have closed meanwhile."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(event.set)
