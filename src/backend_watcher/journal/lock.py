"""One process has a journal: a lock on a file beside it, which the system lets go however the process ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from backend_watcher.errors import JournalBroken, JournalLocked


class Lock:
    """An exclusive lock, taken when made. The file holds the owner's pid, for people."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalBroken(
                f"{path} cannot be opened: {error.strerror}", remedy="Let the watcher write in this folder."
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(self._descriptor, 32).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise JournalLocked(f"process {owner or 'unknown'} has {path} locked") from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Let go. The file stays: removing it would let two owners lock two files of one name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
