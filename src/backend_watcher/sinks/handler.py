"""
A user's function as a sink, so that it is ordered, retried, parked, measured and replayed like any other.

An `async def` runs on the event loop, one change after the other, with nothing between the loop and the function. A
plain `def` runs in a thread, a whole batch in one go.

Each call has `timeout_seconds`; of a function that is called per change, what was done before counts. A thread cannot
be cancelled. It is told to stop after the change it is at, and until it has, no batch with one of its keys begins.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from backend_watcher.contracts import Receipt
from backend_watcher.errors import ConfigError, HandlerError, HandlerTimeout, PartlyWritten
from backend_watcher.events.change import Change
from backend_watcher.sinks.stopwatch import Stopwatch

THREADS_MAX = 8
"""Threads of one handler: so many batches of a plain function run at once."""

TIMEOUT_SECONDS = 30.0
"""How long one call may take."""


class Handler:
    """
    Calls `function(change)` for each change, or `function(changes)` for each batch.

    What it returns is ignored, what it raises is a HandlerError; a return is taken as DURABLE.
    """

    times_itself = True

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        batch: bool = False,
        name: str | None = None,
        threads: int = THREADS_MAX,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        if not callable(function):
            raise ConfigError([f"handler: {type(function).__name__} is not a function"])
        if threads < 1:
            raise ConfigError([f"handler: threads is {threads!r}; 1 or more is right"])
        self._function = function
        self._by_batch = batch
        self.timeout_seconds = timeout_seconds
        self._name = name or _name_of(function)
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._late: set[_Attempt] = set()
        self._is_async = is_async(function)
        if self._is_async:
            self._deliver = self._on_loop
        else:
            self._deliver = self._in_thread

    async def open(self) -> None:
        """Nothing to connect."""

    async def close(self) -> None:
        """Let go of the threads; one that still runs ends after the change it is at."""
        for attempt in self._late:
            attempt.stop.set()
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    async def flush(self) -> None:
        """Nothing waits: a batch is done when `write` returns."""

    def describe(self) -> Mapping[str, Any]:
        """Say which function this is."""
        runs_in = "loop" if self._is_async else "thread"
        return {"kind": "handler", "name": self._name, "batch": self._by_batch, "runs_in": runs_in}

    async def write(self, batch: Sequence[Change]) -> Receipt:
        """Call the function. Raises PartlyWritten with a HandlerError where it raised."""
        await self._deliver(batch)
        return Receipt.DURABLE

    async def _on_loop(self, batch: Sequence[Change]) -> None:
        # A task of its own, one for a batch: a function that cancels the task it is in cancels nobody else's.
        with Stopwatch(self.timeout_seconds) as watch:
            call = self._await_batch if self._by_batch else self._await_each
            running = asyncio.ensure_future(call(batch, watch))
            try:
                # Cancelled, this waits until the function has ended.
                await running
            except BaseException as error:
                if watch.expired:
                    raise self._failed(watch.done, self._too_late()) from error
                if not isinstance(error, asyncio.CancelledError) or _is_for_us(error):
                    raise
                raise self._failed(min(watch.done, len(batch) - 1), _handler_error(error)) from error

    async def _await_each(self, batch: Sequence[Change], watch: Stopwatch) -> None:
        # The hot path: nothing per change but the call itself.
        function = self._function
        done = 0
        try:
            for change in batch:
                await function(change)
                done += 1
                watch.done = done
        except (GeneratorExit, asyncio.CancelledError):
            raise
        except BaseException as error:
            raise self._failed(done, _handler_error(error)) from error

    async def _await_batch(self, batch: Sequence[Change], watch: Stopwatch) -> None:
        try:
            await self._function(batch)
        except (GeneratorExit, asyncio.CancelledError):
            raise
        except BaseException as error:
            raise _handler_error(error) from error

    def _too_late(self) -> HandlerTimeout:
        return HandlerTimeout(f"{self._name} took longer than {self.timeout_seconds:g} s")

    def _failed(self, done: int, error: HandlerError) -> Exception:
        return error if self._by_batch else PartlyWritten(done, error)

    async def _in_thread(self, batch: Sequence[Change]) -> None:
        loop = asyncio.get_running_loop()
        if self._late and (free := await self._free_of_late(batch)) < len(batch):
            if free and not self._by_batch:
                await self._in_thread(batch[:free])
            raise self._failed(free, HandlerTimeout(f"{self._name} still runs since its last try"))
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=f"watcher-{self._name}")
        attempt = _Attempt(self._function, batch, self._by_batch)
        with Stopwatch(self.timeout_seconds) as watch:
            # Before the thread begins: it notes there what is done.
            attempt.watch = watch
            running = loop.run_in_executor(self._pool, functools.partial(copy_context().run, attempt.run))
            try:
                # Shielded, because cancelling it would make a thread at work look finished.
                await asyncio.shield(running)
            except asyncio.CancelledError as error:
                attempt.stop.set()
                self._late.add(attempt)
                attempt.ended = running
                running.add_done_callback(lambda _: self._late.discard(attempt))
                if watch.expired:
                    raise self._failed(attempt.done, self._too_late()) from error
                raise
        if attempt.error is not None:
            raise self._failed(attempt.done, _handler_error(attempt.error)) from attempt.error

    async def _free_of_late(self, batch: Sequence[Change]) -> int:
        """Wait, for a while, for threads that still run with a key of these; return how many come before the first."""
        keys = {_key(change) for change in batch}
        late = [a.ended for a in self._late if a.ended is not None and not keys.isdisjoint(a.at_keys())]
        if late:
            await asyncio.wait(late, timeout=self.timeout_seconds)
        stuck = {key for attempt in self._late for key in attempt.at_keys()}
        return next((number for number, change in enumerate(batch) if _key(change) in stuck), len(batch))


class _Attempt:
    """One batch in a thread. Written by the thread, read by the loop once the thread has ended."""

    __slots__ = ("batch", "by_batch", "done", "ended", "error", "function", "stop", "watch")

    def __init__(self, function: Callable[..., Any], batch: Sequence[Change], by_batch: bool) -> None:
        self.function = function
        self.batch = batch
        self.by_batch = by_batch
        self.stop = threading.Event()
        self.done = 0
        self.error: BaseException | None = None
        self.ended: asyncio.Future[None] | None = None
        self.watch: Stopwatch

    def at_keys(self) -> set[tuple[str, bytes]]:
        """Return the keys it may still be at: told to stop, it begins no further change."""
        return {_key(change) for change in (self.batch if self.by_batch else self.batch[self.done : self.done + 1])}

    def run(self) -> None:
        """Call the function. What it raises is kept: a StopIteration cannot pass through a future."""
        try:
            if self.by_batch:
                _refuse_awaitable(self.function(self.batch))
                return
            function, stopped = self.function, self.stop.is_set
            for change in self.batch:
                if stopped():
                    return
                result = function(change)
                if result is not None:
                    _refuse_awaitable(result)
                self.done += 1
                self.watch.done = self.done
        except BaseException as error:  # noqa: BLE001 sys.exit() in a function is a failed attempt, too
            self.error = error


def _refuse_awaitable(result: object) -> None:
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError("the function returned something to await, and is not an async def")


def _is_for_us(error: BaseException) -> bool:
    """Say whether this is our own cancellation, and not one that the function brought upon itself."""
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _handler_error(error: BaseException) -> HandlerError:
    if isinstance(error, HandlerError):
        return error
    failure = HandlerError(f"{type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def _key(change: Change) -> tuple[str, bytes]:
    return change.table.full_name, change.key_bytes()


def is_async(function: Callable[..., Any]) -> bool:
    """Say whether what a function returns is to be awaited."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _name_of(function: Callable[..., Any]) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"
