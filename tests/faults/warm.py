"""
`watcher run` by the hundred: forked from a process that has imported it already, which is most of what a start costs.

`Warm.start` returns what is used like a `subprocess.Popen`. The process that forks runs this file, does nothing else,
and has one thread; what it starts has its own environment, folder, log and signals, and runs `python -m
backend_watcher` from its first line on. Both ends speak lines of JSON: a request for each start, answered with the
process id, and later a line with its exit code.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REQUEST_BYTES_MAX = 1 << 20
NOT_IMPORTED = ("__main__", "demo")
LOOK_SECONDS = 0.005

_never = threading.Event()


class Forked:
    """One that was started; the part of `subprocess.Popen` that the tests use."""

    def __init__(self, warm: Warm, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._warm = warm

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = self._warm.code(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code. Raises subprocess.TimeoutExpired."""
        until = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired("watcher run", timeout or 0.0)
            _never.wait(LOOK_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended: its id may be another's by then."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class Warm:
    """The process that forks, and what it told."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._lock = threading.Lock()
        self._codes: dict[int, int] = {}
        self._rest = b""
        assert self._process.stdout is not None
        self._told = self._process.stdout
        assert self._line() == {"ready": True}
        os.set_blocking(self._told.fileno(), False)
        atexit.register(self.end)

    def start(self, *arguments: str, cwd: Path, env: Mapping[str, str], log: Path) -> Forked:
        """Start `watcher` with these arguments; what it prints is added to `log`."""
        request = {"arguments": arguments, "cwd": str(cwd), "env": dict(env), "log": str(log)}
        with self._lock:
            assert self._process.stdin is not None
            os.set_blocking(self._told.fileno(), True)
            try:
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
                while "pid" not in (told := self._line()):
                    self._note(told)
            finally:
                os.set_blocking(self._told.fileno(), False)
        return Forked(self, told["pid"])

    def code(self, pid: int) -> int | None:
        """Return an exit code, None while the process runs."""
        with self._lock:
            while (piece := self._told.read(65536)) is not None:
                if not piece:
                    raise RuntimeError("the process that forks has ended")
                self._rest += piece
            *lines, self._rest = self._rest.split(b"\n")
            for line in lines:
                self._note(json.loads(line))
            return self._codes.get(pid)

    def end(self) -> None:
        """End the process that forks."""
        self._process.kill()
        self._process.wait()

    def _line(self) -> dict[str, Any]:
        while b"\n" not in self._rest:
            piece = self._told.read(65536)
            if not piece:
                raise RuntimeError("the process that forks has ended")
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def _note(self, told: dict[str, Any]) -> None:
        self._codes[told["ended"]] = told["code"]


_warm: Warm | None = None


def warm() -> Warm:
    """Return the one of this process, started when it is first wanted."""
    global _warm
    _warm = _warm or Warm()
    return _warm


def _import_all() -> None:
    import backend_watcher

    for module in pkgutil.walk_packages(backend_watcher.__path__, "backend_watcher."):
        if not any(part in NOT_IMPORTED for part in module.name.split(".")):
            importlib.import_module(module.name)


def _tell(**what: object) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def _serve() -> dict[str, Any]:
    """Fork for each request; return only in what was forked, with its request. Ends with its standard input."""
    ours, wakeup = os.pipe()
    for end in (ours, wakeup):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakeup)
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(ours, selectors.EVENT_READ)
        rest = b""
        while True:
            for key, _ in selector.select():
                if key.fd == ours:
                    os.read(ours, 4096)
                    _reap()
                    continue
                if not (piece := os.read(0, REQUEST_BYTES_MAX)):
                    os._exit(0)
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    if (pid := os.fork()) == 0:
                        signal.set_wakeup_fd(-1)
                        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                        os.close(ours)
                        os.close(wakeup)
                        return json.loads(line)  # type: ignore[no-any-return]
                    _tell(pid=pid)


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        _tell(ended=pid, code=os.waitstatus_to_exitcode(status))


def _become(request: dict[str, Any]) -> None:
    """Be what was asked for: from here on as if started by itself."""
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for theirs, number in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(theirs, number)
    os.closerange(3, max(nothing, log) + 1)
    sys.path[0] = request["cwd"]
    sys.argv = ["watcher", *request["arguments"]]
    runpy.run_module("backend_watcher", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    # Ctrl+C is for the tests; those started hear their own signals.
    _import_all()
    gc.freeze()
    assert threading.active_count() == 1, threading.enumerate()
    _tell(ready=True)
    _become(_serve())
