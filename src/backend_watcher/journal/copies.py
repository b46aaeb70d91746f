"""
A copy of a journal's file while it is written, and one put back in its place.

The file alone is not the journal: beside it lies SQLite's WAL, with what was written last. So a plain `cp` is not a
backup, and a file that is put over another one must not meet the other's WAL.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from backend_watcher.contracts import Identity, JournalState
from backend_watcher.errors import JournalError
from backend_watcher.journal.lock import Lock
from backend_watcher.journal.store import broken_means, load_cursors, load_identity, load_standing, open_to_read

PART = ".part"
BESIDE = ("", "-wal")
"""What makes up a journal on the disk, by the ends of the names; `-shm` holds nothing that is not made again."""

ASIDE_MAX = 1000
"""How many journals may lie aside in one folder."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied: where it stands, and of which stream it is, None where it never had one."""

    state: JournalState
    identity: Identity | None


def copy_journal(path: Path, target: Path) -> Copied:
    """
    Copy a journal as it is at one moment, whether or not somebody writes it, into a file that is not there yet.

    `target` has its name only once it is whole and on the disk. Raises JournalError, JournalBroken.
    """
    if target.exists():
        raise JournalError(f"{target} is there already", remedy="Give another name: nothing is overwritten.")
    with _whole(target) as part, broken_means(target, "cannot be written", "Look at the disk and the folder."):
        copied = _copy(path, part)
        # Unlike a rename it overwrites nothing that came in between.
        os.link(part, target)
    return copied


def put_back(copy: Path, path: Path) -> tuple[Copied, Path | None]:
    """
    Make a copy the journal at `path`; what was there is kept aside. Returns what was put back, and that one's name.

    Raises JournalLocked where a watcher has the journal, JournalBroken where the copy is no whole journal.
    """
    with broken_means(path.parent, "cannot be made", "Let the watcher write in this folder."):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = Lock(path.with_name(path.name + ".lock"))
    try:
        with _whole(path) as part, broken_means(path, "cannot be replaced", "Look at the disk and the folder."):
            copied = _copy(copy, part)
            aside = _put_aside(path)
            os.rename(part, path)
            _sync(path.parent)
    finally:
        lock.release()
    return copied, aside


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """Give a file beside the target to write into; whatever is left of it at the end goes away."""
    part = target.with_name(target.name + PART)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _copy(path: Path, part: Path) -> Copied:
    part.unlink(missing_ok=True)
    # Made here because SQLite would make it readable for everybody.
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with closing(open_to_read(path)) as source, closing(sqlite3.connect(part, isolation_level=None)) as copy:
        # All pages in one go, so at one moment: in several, each group that is written begins it again.
        source.backup(copy)
        # A file by itself, until a watcher opens it.
        copy.execute("PRAGMA journal_mode=DELETE").fetchall()
    with closing(open_to_read(part)) as copy:
        standing = load_standing(copy)
        load_cursors(copy)
        copied = Copied(standing.state(standing.is_full), load_identity(copy))
    with part.open("rb") as file:
        os.fsync(file.fileno())
    return copied


def _put_aside(path: Path) -> Path | None:
    """Give the journal that is there another name, its WAL with it; return the name."""
    if not path.exists():
        path.with_name(path.name + "-wal").unlink(missing_ok=True)
        return None
    names = (path.with_name(f"{path.name}.replaced-{number}") for number in range(1, ASIDE_MAX + 1))
    aside = next((name for name in names if not name.exists()), None)
    if aside is None:
        raise JournalError(f"{ASIDE_MAX} journals lie beside {path}", remedy="Remove those that nobody needs.")
    # The WAL first: without its file it is nothing, and a file must not meet another's WAL.
    for end in reversed(BESIDE):
        if (there := path.with_name(path.name + end)).exists():
            there.rename(aside.with_name(aside.name + end))
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    return aside


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
