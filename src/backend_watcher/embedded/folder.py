"""
The folder of one server: its data, its log, and what must be the same at the next start.

    data/         what the server writes                 password, port    kept from start to start
    server.log    this run                               server.log.1      the run before

A given folder is kept; without one, a temporary folder is made and removed. Mode 0700, and everything in it
belongs to the account that runs the server. That account may write here, so nothing is opened through a link.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from backend_watcher.embedded.account import Account
from backend_watcher.embedded.cache import shared_places
from backend_watcher.errors import EmbeddedError

LOG_TAIL_LINES = 15
LOG_TAIL_BYTES = 16_384

_MARK = "embedded-server"
"""The file that says that the folder is ours, and whose: without it nothing in a folder is touched."""


class Folder:
    """An open folder. `keep` says whether it outlives the server."""

    def __init__(self, path: Path, *, keep: bool) -> None:
        self.path = path
        self.keep = keep
        self.data = path / "data"
        self.log = path / "server.log"

    def write(self, name: str, text: str) -> Path:
        """Write a small file that only its owner may read, whole or not at all."""
        path, fresh = self.path / name, self.path / f".{name}.new"
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            found = os.lstat(self.path)
            os.fchown(file.fileno(), found.st_uid, found.st_gid)
        fresh.rename(path)
        return path

    def read(self, name: str) -> str | None:
        """A small file's text without its last line end, or None."""
        try:
            descriptor = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        with open(descriptor, encoding="utf-8") as file:
            return file.read().removesuffix("\n")

    def make_data(self) -> None:
        """An empty data folder of the same owner, for a server that does not make its own."""
        if not self.data.exists():
            self.data.mkdir(mode=0o700)
            found = self.path.lstat()
            os.chown(self.data, found.st_uid, found.st_gid)

    def rotate_log(self) -> None:
        """Begin the log of a new run. That of the run before is kept, older ones are not."""
        if self.log.exists():
            self.log.rename(self.log.with_name("server.log.1"))
        self.write(self.log.name, "")

    def open_log(self) -> int:
        """A descriptor that appends to this run's log."""
        return os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)

    def log_text(self, offset: int = 0) -> str:
        """This run's log from a byte offset, of a long one only the end."""
        with self.log.open("rb") as file:
            file.seek(max(offset, os.fstat(file.fileno()).st_size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")

    def log_tail(self) -> str:
        """The last lines of this run's log."""
        lines = self.log_text().splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:]) or "(the log is empty)"

    def remove(self) -> None:
        """Remove a temporary folder; a given one stays."""
        if not self.keep:
            shutil.rmtree(self.path, ignore_errors=True)


def owner_of(path: Path | None) -> int | None:
    """Who owns a given folder that exists already, or None."""
    try:
        return path.lstat().st_uid if path is not None else None
    except FileNotFoundError:
        return None


def open_folder(path: Path | None, account: Account, kind: str) -> Folder:
    """The given folder, or a temporary one, made ready for `account`."""
    if path is None:
        return _temporary(account, kind)
    path = path.expanduser().absolute()
    try:
        path.mkdir(parents=True, mode=0o700, exist_ok=True)
        # A mounted disk is empty too.
        strangers = sorted({item.name for item in path.iterdir()} - {"lost+found"})
        mark = Folder(path, keep=True).read(_MARK)
    except OSError as error:
        raise EmbeddedError(
            f"{path} cannot be used as a data folder: {error.strerror}", remedy="Name another data folder."
        ) from None
    if strangers and mark != kind:
        # Changing the owner of such a folder would change somebody's files.
        raise EmbeddedError(
            f"{path} is not empty, and not the data folder of an embedded {kind}: it holds {strangers[0]}",
            remedy="Name a folder that is empty or does not exist.",
        )
    _give(path, account)
    if not account.reaches(path):
        raise EmbeddedError(
            f"user {account.uid}, which runs the server, does not reach {path}",
            remedy="Name a data folder whose parents every user can enter.",
        )
    folder = Folder(path, keep=True)
    folder.write(_MARK, f"{kind}\n")
    return folder


def _temporary(account: Account, kind: str) -> Folder:
    for place in shared_places():
        path = Path(tempfile.mkdtemp(prefix=f"watcher-{kind.lower()}-", dir=place))
        _give(path, account)
        if account.reaches(path):
            return Folder(path, keep=False)
        path.rmdir()
    raise EmbeddedError(
        f"there is no place for temporary files that user {account.uid} can reach",
        remedy="Set TMPDIR to such a folder, or name a data folder.",
    )


def _give(path: Path, account: Account) -> None:
    """Make `path` and everything in it belong to the account, without following any link."""
    wanted = account.file_owner
    found = path.lstat()
    if found.st_uid == wanted[0]:
        path.chmod(0o700)
        return
    if os.geteuid() != 0:
        raise EmbeddedError(f"{path} belongs to user {found.st_uid}", remedy="Name a data folder of your own.")
    for _, _, names, descriptor in os.fwalk(path, topdown=False):
        for name in names:
            os.chown(name, *wanted, dir_fd=descriptor, follow_symlinks=False)
        os.fchown(descriptor, *wanted)
    path.chmod(0o700)
