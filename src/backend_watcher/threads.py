"""A thread with an event loop of its own, where no handler of another loop can hold it up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
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
        self._ending = False
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
            call_threadsafe(self._loop, self._task.cancel)
        await asyncio.to_thread(self._thread.join, STOP_SECONDS_MAX)

    async def ask(self, question: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in the thread's loop and return what it gives. Raises RuntimeError where it has ended."""
        if not self._running.is_set():
            await asyncio.to_thread(self._running.wait, STOP_SECONDS_MAX)
        if self._loop is None or self.finished.done():
            raise RuntimeError(f"thread {self.name} has ended")
        answer: Future[T] = Future()
        answered = asyncio.wrap_future(answer)
        ended: list[asyncio.Future[Any]] = [answered, self.finished]
        if call_threadsafe(self._loop, lambda: self._answer(question, answer)):
            try:
                await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
            finally:
                # What was begun goes on all the same.
                answered.cancel()
            if not answered.cancelled():
                return answered.result()
        raise RuntimeError(f"thread {self.name} has ended")

    def _answer(self, question: Callable[[], Coroutine[Any, Any, T]], answer: Future[T]) -> None:
        """Begin with a question, in its loop; ending, nothing is begun that would not be ended with it."""
        assert self._loop is not None
        assert self._task is not None
        if self._ending or not answer.set_running_or_notify_cancel():
            answer.cancel()
            return
        task = self._loop.create_task(question())
        task.add_done_callback(lambda task: self._pass_on(task, answer))

    def _pass_on(self, task: asyncio.Task[T], answer: Future[T]) -> None:
        if task.cancelled():
            answer.set_exception(RuntimeError(f"thread {self.name} has ended"))
        elif (error := task.exception()) is not None:
            answer.set_exception(error)
        else:
            answer.set_result(task.result())

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
        call_threadsafe(self._outer, lambda: self._finish(error))

    async def _begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        running = self._run()
        self._running.set()
        try:
            await running
        finally:
            self._ending = True

    def _finish(self, error: BaseException | None) -> None:
        if self.finished.done():
            return
        if error is None:
            self.finished.set_result(None)
        else:
            self.finished.set_exception(error)


def call_threadsafe(loop: asyncio.AbstractEventLoop, action: Callable[[], object]) -> bool:
    """Call something in another thread's loop; say whether that was still open."""
    try:
        loop.call_soon_threadsafe(action)
    except RuntimeError:
        return False
    return True


def set_threadsafe(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    """Set an event of another thread's loop, which may have closed meanwhile."""
    call_threadsafe(loop, event.set)
