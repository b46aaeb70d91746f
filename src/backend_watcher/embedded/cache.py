"""
A copy of an install tree that another account can reach.

Root may need it: a virtual environment below somebody's mode-700 home is closed to the account that runs the
server, and opening the home is not ours to do. The copy is readable by all, writable by root alone, made beside
its place and moved there in one step, so that two programs may make it at once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from backend_watcher.embedded.account import Account, Way
from backend_watcher.embedded.install import InstallTree
from backend_watcher.errors import EmbeddedError

_SKIPPED = ("include", "__pycache__", "doc", "man")
_SHARED_PLACES = ("/var/tmp", "/tmp")  # noqa: S108 - see _cache_folder: owner and mode are checked


def reachable(tree: InstallTree, account: Account, program: str) -> InstallTree:
    """`tree` if `account` can run `program` in it, else a copy of it that it can run."""
    if account.output_of(tree.program(program), "--version") is not None:
        return tree
    if account.way is Way.DIRECT:
        raise EmbeddedError(
            f"{tree.program(program)} does not run here", remedy="It may be made for another system or processor."
        )
    copy = _copied(tree, account)
    if account.output_of(copy.program(program), "--version") is None:
        raise EmbeddedError(
            f"{tree.program(program)} does not run as user {account.uid}, nor does its copy {copy.bin}",
            remedy="It may be made for another system or processor.",
        )
    return copy


def shared_places() -> Iterator[Path]:
    """Folders for temporary files that other accounts can usually reach, best first."""
    seen = set()
    for place in (tempfile.gettempdir(), *_SHARED_PLACES):
        if place not in seen and os.path.isdir(place):
            seen.add(place)
            yield Path(place)


def _copied(tree: InstallTree, account: Account) -> InstallTree:
    files = _files_of(tree)
    home = _cache_folder(account)
    place = home / f"tree-{_key(tree, files)}"
    moved = InstallTree(
        place / tree.bin.relative_to(tree.anchor),
        tuple(place / folder.relative_to(tree.anchor) for folder in tree.folders),
    )
    # Compared file by file: a cleaner of /var/tmp removes old files one at a time.
    if place.is_dir() and _files_of(moved) == files:
        return moved
    fresh = Path(tempfile.mkdtemp(prefix="new-", dir=home))
    try:
        for folder in tree.folders:
            _copy_folder(folder, fresh / folder.relative_to(tree.anchor))
        fresh.chmod(0o755)
        if place.is_dir():
            place.rename(fresh / "broken")
        fresh.rename(place)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        # Another program may have moved its own copy there first.
        if not place.is_dir() or _files_of(moved) != files:
            raise
    shutil.rmtree(place / "broken", ignore_errors=True)
    return moved


def _copy_folder(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(*_SKIPPED))
    for folder, _, names in os.walk(target):
        os.chmod(folder, 0o755)  # noqa: S103 - programs, for everybody to run
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)


def _cache_folder(account: Account) -> Path:
    """A folder that we own and nobody else can write to, where programs may be run."""
    reasons = []
    for place in shared_places():
        folder = place / f"backend-watcher-{os.geteuid()}"
        if os.statvfs(place).f_flag & os.ST_NOEXEC:
            reasons.append(f"{place} does not allow programs")
            continue
        try:
            folder.mkdir(mode=0o755, exist_ok=True)
            found = folder.lstat()
            # Somebody may have put a folder or a link of this name there before us.
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
                reasons.append(f"{folder} is not ours alone")
                continue
            folder.chmod(0o755)
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror}")
            continue
        if account.output_of("/bin/sh", "-c", f'cd "{folder}"') is not None:
            return folder
        reasons.append(f"user {account.uid} does not reach {folder}")
    raise EmbeddedError(
        f"there is no place for programs that user {account.uid} can reach: {'; '.join(reasons)}",
        remedy="Set TMPDIR to such a folder, or install the package where every user can read it.",
    )


def _files_of(tree: InstallTree) -> dict[str, int]:
    """Every file of the tree that is copied: its path below the anchor, and its size."""
    found = {}
    for root in tree.folders:
        for folder, names, files in os.walk(root):
            names[:] = [name for name in names if name not in _SKIPPED]
            for name in files:
                if name not in _SKIPPED:
                    path = Path(folder, name)
                    found[str(path.relative_to(tree.anchor))] = path.lstat().st_size
    return found


def _key(tree: InstallTree, files: dict[str, int]) -> str:
    """Names one state of one tree: another version, or the same one built again, gets another copy."""
    digest = hashlib.sha256(repr(sorted(files.items())).encode())
    for program in sorted(tree.bin.iterdir()):
        digest.update(f"{program.name}:{program.stat().st_mtime_ns}".encode())
    return digest.hexdigest()[:16]
