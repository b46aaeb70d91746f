"""Runs a source in a thread with an event loop of its own, where no handler can hold it up."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from backend_watcher.contracts import Source

STOP_SECONDS_MAX = 10.0


class CaptureThread:
    """Start it, await `finished`, `stop` it. `finished` holds the error that ended the source, if one did."""

    def __init__(self, make_source: Callable[[], Source]) -> None:
        self._make_source = make_source
        self._thread = threading.Thread(target=self._main, name="capture", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._running = threading.Event()
        self._outer = asyncio.get_running_loop()
        self.finished: asyncio.Future[None] = self._outer.create_future()

    def start(self) -> None:
        """Begin to capture."""
        self._thread.start()

    async def stop(self) -> None:
        """End the source and wait for its thread. May be called twice."""
        if not self._thread.is_alive():
            return
        await asyncio.to_thread(self._running.wait, STOP_SECONDS_MAX)
        if self._loop is not None and self._task is not None:
            # The loop may have ended by itself in between.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._task.cancel)
        await asyncio.to_thread(self._thread.join, STOP_SECONDS_MAX)

    def _main(self) -> None:
        error: BaseException | None = None
        try:
            asyncio.run(self._run())
        except asyncio.CancelledError:
            pass
        except BaseException as failure:  # noqa: BLE001 it is raised where `finished` is awaited
            error = failure
        self._running.set()
        # There may be nobody who waits any more.
        with contextlib.suppress(RuntimeError):
            self._outer.call_soon_threadsafe(self._finish, error)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        source = self._make_source()
        self._running.set()
        await source.run()

    def _finish(self, error: BaseException | None) -> None:
        if self.finished.done():
            return
        if error is None:
            self.finished.set_result(None)
        else:
            self.finished.set_exception(error)
