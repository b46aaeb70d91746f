"""
One child: start it, wait until it is ready, stop it in bounded time, know when the last of its family is gone.

Two things are not obvious. Children are started by one thread that lives as long as the program, because the
kernel's "tell me when my parent dies" means the thread that forked. And every child inherits the writing end of
a pipe, which its own children inherit in turn: the reading end says end-of-file when all of them are gone,
also those that a killed server leaves behind.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from signal import SIGKILL, Signals

from backend_watcher.embedded.account import environment
from backend_watcher.errors import EmbeddedError

STOP_SECONDS_MAX = 20.0
"""For each signal of a stop; then the next, harder one is sent."""

FAMILY_SECONDS_MAX = 5.0
"""For the children of a killed server to notice; one that computes does not, and is ended after that."""

_POLL_SECONDS = 0.01


class ServerProcess:
    """A running child, in a session of its own: Ctrl-C in our terminal is for us, not for it."""

    def __init__(self, command: Sequence[str], *, name: str, log: int, stdin: int = subprocess.DEVNULL) -> None:
        self._name = name
        self._owner = os.getpid()
        self._family, inherited = os.pipe()
        try:
            self._popen = _starter.start(
                lambda: subprocess.Popen(
                    command,
                    stdin=stdin,
                    stdout=log,
                    stderr=log,
                    env=environment(),
                    cwd="/",
                    pass_fds=(inherited,),
                    start_new_session=True,
                )
            )
        except BaseException:
            self._close()
            raise
        finally:
            os.close(inherited)
        self.pid = self._popen.pid

    @property
    def running(self) -> bool:
        """Whether the child itself is there."""
        return self._popen.poll() is None

    def wait_until(self, ready: Callable[[], bool], seconds_max: float) -> bool:
        """True when `ready`; False when the child ended first, or time is up."""
        end = time.monotonic() + seconds_max
        while time.monotonic() < end:
            if not self.running:
                return False
            if ready():
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def wait(self, seconds_max: float) -> int | None:
        """The child's exit code, or None when time is up."""
        try:
            return self._popen.wait(seconds_max)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, signals: Sequence[Signals]) -> None:
        """Send one signal after the other, each with its time, at last SIGKILL; return when all are gone."""
        for wish in (*signals, SIGKILL):
            if self._owner != os.getpid():
                return  # a forked copy of the program: the child is not its own
            if self.running:
                self._popen.send_signal(wish)
                if self.wait(STOP_SECONDS_MAX) is not None:
                    break
        self._wait_for_family()

    def _wait_for_family(self) -> None:
        if self._family < 0:
            return
        poll = select.poll()
        poll.register(self._family, select.POLLIN)
        gone = poll.poll(FAMILY_SECONDS_MAX * 1000)
        if not gone:
            _end_writers(os.fstat(self._family).st_ino)
            gone = poll.poll(FAMILY_SECONDS_MAX * 1000)
        self._close()
        if not gone:
            raise EmbeddedError(
                f"{self._name} {self.pid} was stopped, but some of its processes are still there",
                remedy="Look for them with ps, and end them by their id.",
            )

    def _close(self) -> None:
        if self._family >= 0:
            with contextlib.suppress(OSError):
                os.close(self._family)
            self._family = -1


def _end_writers(pipe: int) -> None:
    """End the processes that hold the writing end of a pipe of ours: nobody else can have it. Linux only."""
    if sys.platform != "linux":
        return
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is not ours to look at
            for descriptor in os.listdir(f"/proc/{process}/fd"):
                if os.readlink(f"/proc/{process}/fd/{descriptor}") == f"pipe:[{pipe}]":
                    flags = Path(f"/proc/{process}/fdinfo/{descriptor}").read_text().split("flags:")[1].split()[0]
                    if int(flags, 8) & os.O_WRONLY:  # the reading end is in this program and its forks
                        os.kill(int(process), SIGKILL)
                        break


class _Starter:
    """The thread that starts every child. A daemon: it must not end before the program does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wishes: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]]
        self._wishes = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, wish: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        with self._lock:
            # Also after a fork: threads do not come along.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="embedded-starter", daemon=True)
                self._thread.start()
        result: Future[subprocess.Popen[bytes]] = Future()
        self._wishes.put((wish, result))
        return result.result()

    def _run(self) -> None:
        while True:
            wish, result = self._wishes.get()
            try:
                result.set_result(wish())
            except BaseException as error:  # noqa: BLE001 - it belongs to the thread that asked
                result.set_exception(error)


_starter = _Starter()
