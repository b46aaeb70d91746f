"""
Transactions in progress, on disk: a file each, so that memory stays small however large they are.

Nothing here needs to survive: after any break the server sends such a transaction again from its beginning. A file is
a row of runs (`decode/streams.py`), each behind its transaction id, how many messages it has, and how many bytes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path

from backend_watcher.decode.streams import Run
from backend_watcher.errors import SpillFull

_HEAD = struct.Struct("=IIQ")
_SUFFIX = ".transaction"
_NO_ROOM = frozenset({errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM})


class _InProgress:
    """What is known of one transaction: which parts of it are undone, and its file's size."""

    __slots__ = ("size_bytes", "undone")

    def __init__(self) -> None:
        # Numbers in four bytes each: a loop with an exception in each turn undoes millions.
        self.undone = array("I")
        self.size_bytes = 0


class Spill:
    """
    Keeps transactions in progress in `folder`, which is ours alone, up to `limit_bytes` in all.

    All methods wait for the disk. Raises SpillFull where there is no room, or the folder cannot be written.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._open: dict[int, _InProgress] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._open)

    def clear(self) -> None:
        """Forget everything, also what an earlier process left; what is not ours in the folder stays."""
        self._open.clear()
        self.size_bytes = 0
        with contextlib.suppress(OSError):
            for file in self._folder.glob(f"*{_SUFFIX}"):
                file.unlink(missing_ok=True)
            self._folder.rmdir()

    def append(self, xid: int, runs: Sequence[Run]) -> None:
        """Add to the transaction `xid`."""
        one = self._open.setdefault(xid, _InProgress())
        parts: list[bytes] = []
        for run in runs:
            parts += [_HEAD.pack(run.xid, len(run.sizes), len(run.data)), array("I", run.sizes).tobytes(), run.data]
        written = b"".join(parts)
        if not written:
            return
        if self.size_bytes + len(written) > self._limit_bytes:
            raise SpillFull(f"transactions in progress take more than {self._limit_bytes} bytes")
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(self._file(xid), "ab", buffering=0, opener=_private) as file:
                left = memoryview(written)
                while left:
                    left = left[file.write(left) :]
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise SpillFull(f"{self._folder} takes no transaction in progress: {error.strerror}") from error
        one.size_bytes += len(written)
        self.size_bytes += len(written)

    def undo(self, xid: int, subxid: int) -> None:
        """Note that a transaction is rolled back, or a part of it. One that is not known had nothing for us."""
        one = self._open.get(xid)
        if one is None:
            return
        if xid == subxid:
            self.forget(xid)
        else:
            one.undone.append(subxid)

    def read(self, xid: int) -> Iterator[Run]:
        """Return what a transaction did and did not undo, in order."""
        one = self._open.get(xid)
        if one is None or not one.size_bytes:
            return
        undone = array("I", sorted(one.undone))
        with open(self._file(xid), "rb") as file:
            while head := file.read(_HEAD.size):
                run_xid, count, size = _HEAD.unpack(head)
                if _holds(undone, run_xid):
                    file.seek(4 * count + size, os.SEEK_CUR)
                    continue
                sizes = array("I")
                sizes.frombytes(file.read(4 * count))
                yield Run(run_xid, list(sizes), file.read(size))

    def forget(self, xid: int) -> None:
        """Let go of a transaction."""
        one = self._open.pop(xid, None)
        if one is not None and one.size_bytes:
            self.size_bytes -= one.size_bytes
            self._file(xid).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self._folder.rmdir()  # the last one takes the folder with it

    def _file(self, xid: int) -> Path:
        return self._folder / f"{xid}{_SUFFIX}"


def _private(path: str, flags: int) -> int:
    """Open a file that only its owner reads: it has rows in it."""
    return os.open(path, flags, 0o600)


def _holds(numbers: array[int], number: int) -> bool:
    at = bisect_left(numbers, number)
    return at < len(numbers) and numbers[at] == number
