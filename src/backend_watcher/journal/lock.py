"""One process has a journal: a lock on a file beside it, which the system lets go however the process ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from backend_watcher.errors import JournalBroken, JournalLocked

_TAKEN = (
    "Leave the lock file and the journal's folder alone while a watcher runs. Make sure that only one instance is "
    "left, and start it again: this one wrote nothing after it noticed."
)


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
        found = os.fstat(self._descriptor)
        self._file = (found.st_dev, found.st_ino)

    def check(self) -> None:
        """
        Raise JournalBroken where the file of our name is not the one we locked.

        A lock holds for a file, not for its name: who removed or replaced it let another process in beside us.
        """
        try:
            found = os.stat(self._path)
        except OSError as error:
            raise JournalBroken(f"the lock {self._path} is gone: {error.strerror}", remedy=_TAKEN) from error
        if (found.st_dev, found.st_ino) != self._file:
            raise JournalBroken(
                f"the lock {self._path} was replaced: another process may have the journal", remedy=_TAKEN
            )

    def release(self) -> None:
        """Let go. The file stays: removing it would let two owners lock two files of one name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
