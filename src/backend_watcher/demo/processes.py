"""
The processes of the demo: started from one place, ended in the opposite order, whatever happens.

Each is in a session of its own, so Ctrl-C in the terminal reaches the demo alone, which then ends them by their ids;
on Linux the kernel ends them, too, if the demo itself is killed.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

from backend_watcher.embedded.account import Account, Way
from backend_watcher.errors import EmbeddedError

READY_SECONDS_MAX = 30.0
END_SECONDS_MAX = 15.0
LOG_TAIL_LINES = 15


class Child:
    """`python -m MODULE ARGUMENTS…`. If it `talks`, lines of JSON that it prints are read; the rest is logged."""

    def __init__(
        self,
        name: str,
        module: str,
        *arguments: str,
        folder: Path,
        environment: Mapping[str, str],
        works_in: Path | None = None,
        talks: bool = True,
    ) -> None:
        self.name = name
        self.log = folder / f"{name.replace(' ', '-')}.log"
        direct = Account(Way.DIRECT, os.geteuid(), os.getegid())
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            self._popen = subprocess.Popen(
                direct.command(sys.executable, "-m", module, *arguments, end_signal=SIGTERM),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else descriptor,
                stderr=descriptor,
                env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
                cwd=works_in,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        self.pid = self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it is there."""
        return self._popen.poll() is None

    def first_line(self) -> Any:
        """Wait for the first line of JSON it prints. Raises EmbeddedError if it ends, or takes too long."""
        for found in self.lines(READY_SECONDS_MAX):
            if found is not None:
                return found
        raise self.failed("did not start")

    def lines(self, seconds_max: float) -> Iterator[Any]:
        """Yield the lines of JSON it prints until it ends, and None when there was none for a while."""
        assert self._popen.stdout is not None
        end = time.monotonic() + seconds_max
        descriptor, text = self._popen.stdout.fileno(), b""
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while (left := end - time.monotonic()) > 0:
                if not selector.select(min(left, 0.1)):
                    yield None
                    continue
                read = os.read(descriptor, 1 << 16)
                if not read:
                    return
                *whole, text = (text + read).split(b"\n")
                for line in whole:
                    yield json.loads(line)

    def kill(self) -> None:
        """SIGKILL, by its id."""
        self._popen.send_signal(SIGKILL)
        self._popen.wait()

    def end(self) -> None:
        """SIGTERM, and SIGKILL if it takes too long. May be called twice."""
        if self.running:
            self._popen.send_signal(SIGTERM)
            try:
                self._popen.wait(END_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.kill()
        if self._popen.stdout is not None:
            self._popen.stdout.close()

    def failed(self, what: str) -> EmbeddedError:
        """Return the error that says what its log says."""
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        return EmbeddedError(f"{self.name} {what}; its last lines:\n{tail or '(its log is empty)'}")
