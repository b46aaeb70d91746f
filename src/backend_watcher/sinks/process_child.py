"""
One process that runs a user's functions: start it, give it a batch, look how far it is, end it in bounded time.

It is told what to do over a pair of sockets. How far it is in a batch stands in memory that it shares with us: that
costs no system call for a change, and is still there when the process is not. It has a session of its own, so Ctrl-C
is for us alone and what it started ends with it; and it ends when we do, even by `kill -9`: the kernel sends it
SIGKILL, and where there is no such kernel a thread of it waits for the other end of the socket to close.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from backend_watcher.sinks.process_wire import Frames, Kind, Setup, frame

PROGRAM = "backend_watcher.service.worker"

END_SECONDS_MAX = 3.0
"""How long a process may take to end by itself; then it is killed."""

KILL_SECONDS_MAX = 5.0
"""How long a killed process may take to be gone."""

LOOK_SECONDS = 0.25
"""How often a process at work is looked at."""

LOOKS = 4
"""How often within a short limit: a call is ended after 1 to 1.25 times its limit."""

RECEIVE_BYTES = 1 << 16
BEGUN, DONE = 0, 1


class ChildEndedError(Exception):
    """The process is not there any more."""


class ChildSilentError(Exception):
    """Nothing was done for as long as one call may take."""


class Child:
    """A running process. In use by one event loop at a time."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        descriptor = _shared_memory()
        self._progress = memoryview(mmap.mmap(descriptor, mmap.PAGESIZE)).cast("Q")
        command = [sys.executable, "-m", PROGRAM, str(theirs.fileno()), str(descriptor)]
        try:
            self._popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(), descriptor), start_new_session=True
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(descriptor)
        ours.setblocking(False)
        self.socket = ours
        self.frames = Frames()
        self.tables: set[int] = set()
        """The versions of the tables that it was told."""

    @classmethod
    async def start(cls) -> Child:
        """Start a process. It has still to be told what to load."""
        return await asyncio.wrap_future(_starter.start(cls))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it is there."""
        if self._popen.returncode is not None:
            return False
        if not hasattr(os, "waitid"):
            return self._popen.poll() is None
        # Not waited for: until then its number is its own, and what it started can be found by it.
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    @property
    def begun(self) -> bool:
        """Whether it began with the batch it was given."""
        return bool(self._progress[BEGUN])

    @property
    def done(self) -> int:
        """How many changes of the batch are done."""
        return int(self._progress[DONE])

    async def ask(self, data: bytes, seconds: float, silent: Callable[[float], None]) -> tuple[Kind, bytes]:
        """
        Send frames and return the one that answers them; `silent` is told for how long nothing was done.

        Raises ChildEndedError, and ChildSilentError where nothing was done for `seconds`.
        """
        self._progress[BEGUN] = self._progress[DONE] = 0
        return await _Exchange(self, data, seconds, silent).run()

    async def kill(self) -> str:
        """End it now, with all that it started; say what ended it, or what had before."""
        return await asyncio.to_thread(self.kill_now)

    def kill_now(self) -> str:
        """Do as `kill`, where nothing can be awaited any more."""
        # Once it was waited for, its number may be somebody else's.
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(KILL_SECONDS_MAX)
        return self._ended()

    def ask_to_end(self) -> None:
        """Tell it that there is nothing more to do."""
        with contextlib.suppress(OSError):
            self.socket.send(frame(Kind.STOP))

    def wait_until(self, end: float) -> None:
        """Wait for its end until a time, then kill it. Blocks."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(max(0.0, end - time.monotonic()))
        self.kill_now()

    def _ended(self) -> str:
        self.socket.close()
        code = self._popen.poll()
        if code is None:
            return "not yet ended"
        if code >= 0:
            return f"exit code {code}"
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
        return f"signal {-code}"


def end_all(children: list[Child]) -> None:
    """Let processes end by themselves, all at once, and kill those that do not. Blocks, for a bounded time."""
    for child in children:
        child.ask_to_end()
    end = time.monotonic() + END_SECONDS_MAX
    for child in children:
        child.wait_until(end)


async def started(setup: Setup, seconds: float) -> tuple[Child, Kind, bytes]:
    """Start a process and have it load a program; return what it says to that. Raises as `Child.ask` does."""
    child = await Child.start()
    try:
        return child, *await child.ask(frame(Kind.SETUP, setup), seconds, lambda _: None)
    except BaseException:
        child.kill_now()
        raise


class _Exchange:
    """Frames out, one frame back, with an eye on the progress. Nothing of it can be lost by a cancellation."""

    def __init__(self, child: Child, data: bytes, seconds: float, silent: Callable[[float], None]) -> None:
        self._child = child
        self._rest = memoryview(data)
        self._seconds = seconds
        self._silent = silent
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[tuple[Kind, bytes]] = self._loop.create_future()
        self._look_seconds = min(LOOK_SECONDS, seconds / LOOKS)
        self._seen = 0
        self._since = self._loop.time()

    async def run(self) -> tuple[Kind, bytes]:
        socket = self._child.socket
        self._loop.add_reader(socket, self._read)
        self._timer = self._loop.call_later(self._look_seconds, self._look)
        try:
            self._write()
            return await self._answer
        finally:
            self._timer.cancel()
            self._loop.remove_reader(socket)
            self._loop.remove_writer(socket)

    def _write(self) -> None:
        try:
            sent = self._child.socket.send(self._rest)
        except BlockingIOError:
            sent = 0
        except OSError:
            # It is gone. What it said before can still be read.
            self._loop.remove_writer(self._child.socket)
            return
        self._rest = self._rest[sent:]
        if self._rest:
            self._loop.add_writer(self._child.socket, self._write)
        else:
            self._loop.remove_writer(self._child.socket)

    def _read(self) -> None:
        try:
            data = self._child.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._fail(ChildEndedError())
        for answer in self._child.frames.feed(data):
            if not self._answer.done():
                self._answer.set_result(answer)

    def _look(self) -> None:
        self._timer = self._loop.call_later(self._look_seconds, self._look)
        now, seen = self._loop.time(), self._child.done + self._child.begun
        if seen != self._seen:
            self._seen, self._since = seen, now
        self._silent(now - self._since)
        if not self._child.running:
            # What it started may still hold its end of the socket.
            self._read()
            self._fail(ChildEndedError())
        elif now - self._since >= self._seconds:
            self._fail(ChildSilentError())

    def _fail(self, error: Exception) -> None:
        self._loop.remove_reader(self._child.socket)
        if not self._answer.done():
            self._answer.set_exception(error)


def _shared_memory() -> int:
    """Return a descriptor of memory that a child can share: a file without a name, of one page."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("watcher-progress")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.write(descriptor, bytes(mmap.PAGESIZE))
    return descriptor


class _Starter:
    """
    The thread that starts every process, and lives as long as the program does.

    "Tell me when my parent dies" means, to the kernel, the thread that started it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wishes: queue.SimpleQueue[tuple[Callable[[], Child], Future[Child]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, make: Callable[[], Child]) -> Future[Child]:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="watcher-starter", daemon=True)
                self._thread.start()
        result: Future[Child] = Future()
        self._wishes.put((make, result))
        return result

    def _run(self) -> None:
        while True:
            make, result = self._wishes.get()
            if not result.set_running_or_notify_cancel():
                continue
            try:
                result.set_result(make())
            except BaseException as error:  # noqa: BLE001 it belongs to who asked
                result.set_exception(error)


_starter = _Starter()
