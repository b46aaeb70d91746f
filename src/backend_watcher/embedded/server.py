"""
The life of an embedded server: start, stop, kill, restart, and the end when the program ends.

What PostgreSQL and Valkey have in common lives here; what they are is said in their own files. A server does
not outlive the program: it is stopped at exit, and on Linux the kernel stops it when the program is killed.
(On macOS a killed program leaves its server behind; the next start on that folder says so.)
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from signal import Signals
from types import TracebackType
from typing import ClassVar, Self

from backend_watcher.embedded import account as accounts
from backend_watcher.embedded.account import Account, Way
from backend_watcher.embedded.folder import Folder, open_folder, owner_of
from backend_watcher.embedded.ports import free_port
from backend_watcher.embedded.process import ServerProcess
from backend_watcher.errors import EmbeddedError

READY_SECONDS_MAX = 120.0
"""From start to ready, crash recovery included."""

PORT_ATTEMPTS_MAX = 5
"""Another program may take a free port before the server does."""


class EmbeddedServer(ABC):
    """A server of ours. Its methods may be called from any thread; one at a time gets through."""

    kind: ClassVar[str]
    end_signal: ClassVar[Signals]
    stop_signals: ClassVar[dict[str, Sequence[Signals]]]

    def __init__(self, data_dir: Path | str | None, *, port: int | None, way: Way | None) -> None:
        self._data_dir = Path(data_dir) if data_dir is not None else None
        self._wanted_port = port
        self._wanted_way = way
        self._folder: Folder | None = None
        self._account: Account | None = None
        self._process: ServerProcess | None = None
        self._port: int | None = None
        self._lock = threading.RLock()
        self._owner = os.getpid()

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        if self._port is None:
            raise self._not_started()
        return self._port

    @property
    def folder(self) -> Path:
        """The folder that holds the data, the log, and what is remembered."""
        return self._opened().path

    @property
    def log_path(self) -> Path:
        """The log of this run."""
        return self._opened().log

    @property
    def pid(self) -> int:
        """The process id of the server."""
        if self._process is None:
            raise self._not_started()
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server's process is there."""
        return self._process is not None and self._process.running

    @property
    def way(self) -> Way:
        """How the server was made not to be root."""
        if self._account is None:
            raise self._not_started()
        return self._account.way

    def start(self) -> Self:
        """Start and wait until the server answers. Does nothing if it runs."""
        with self._lock:
            if not self.running:
                if self._process is not None:
                    self._halt(())  # it ended by itself: wait for what it left behind
                try:
                    self._start()
                except BaseException:
                    self._abandon()
                    raise
        return self

    def stop(self, mode: str = "fast") -> None:
        """Stop, and remove the folder if it was temporary. Does nothing if it does not run."""
        if mode not in self.stop_signals:
            raise ValueError(f"mode {mode!r} is not one of {', '.join(self.stop_signals)}")
        with self._lock:
            self._halt(self.stop_signals[mode])
            self._leave()

    def kill(self) -> None:
        """End the server as by SIGKILL, and wait until every process of it is gone. The folder stays."""
        with self._lock:
            self._halt(())

    def restart(self, mode: str = "fast") -> None:
        """Stop and start on the same folder and the same port."""
        with self._lock:
            self._halt(self.stop_signals[mode])
            self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def _prepare(self, folder: Folder, account: Account) -> None:
        """Everything before the server itself is started."""

    @abstractmethod
    def _command(self, folder: Folder, port: int) -> list[str]:
        """The program and its arguments."""

    @abstractmethod
    def _ready(self, folder: Folder, port: int) -> bool:
        """Whether it answers."""

    def _start(self) -> None:
        if self._account is None:
            self._account = accounts.choose(self._wanted_way, owner=owner_of(self._data_dir))
        if self._folder is None:
            self._folder = open_folder(self._data_dir, self._account, self.kind)
        folder, account = self._folder, self._account
        atexit.register(self._at_exit)
        folder.rotate_log()
        self._prepare(folder, account)
        remembered = self._port or int(folder.read("port") or 0) or None
        for attempt in range(PORT_ATTEMPTS_MAX):
            port = self._wanted_port or free_port(remembered if attempt == 0 else None)
            if self._run(folder, account, port):
                self._port = port
                folder.write("port", f"{port}\n")
                return
            if self._wanted_port or "Address already in use" not in folder.log_tail():
                break
        raise EmbeddedError(
            f"{self.kind} does not start; the last lines of {folder.log}:\n{folder.log_tail()}",
            remedy="Mend what its log names.",
        )

    def _run(self, folder: Folder, account: Account, port: int) -> bool:
        program, *arguments = self._command(folder, port)
        log = folder.open_log()
        try:
            process = ServerProcess(
                account.command(program, *arguments, end_signal=self.end_signal),
                name=self.kind,
                log=log,
            )
        finally:
            os.close(log)
        self._process = process
        if process.wait_until(lambda: self._ready(folder, port), READY_SECONDS_MAX):
            return True
        self._halt(self.stop_signals["fast"])
        return False

    def _halt(self, signals: Sequence[Signals]) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.stop(signals)

    def _leave(self) -> None:
        """Forget a temporary folder, which is gone with its server; remember a kept one."""
        atexit.unregister(self._at_exit)
        if self._folder is not None and not self._folder.keep:
            self._folder.remove()
            self._folder = self._port = None

    def _abandon(self) -> None:
        """After a failed start: nothing runs, nothing temporary is left."""
        with contextlib.suppress(EmbeddedError):
            self._halt(self.stop_signals["fast"])
        self._leave()

    def _at_exit(self) -> None:
        # A forked copy of the program must neither stop our server nor remove its folder.
        if self._owner == os.getpid():
            with contextlib.suppress(EmbeddedError):
                self.stop()

    def _opened(self) -> Folder:
        if self._folder is None:
            raise self._not_started()
        return self._folder

    def _not_started(self) -> EmbeddedError:
        return EmbeddedError(f"this {self.kind} was not started", remedy="Call start() first.")
