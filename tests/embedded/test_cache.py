"""The copy of an install tree for an account that cannot reach it."""

from __future__ import annotations

import shutil
import stat
import tempfile
from pathlib import Path

import pytest

from backend_watcher.embedded import account, cache, install
from backend_watcher.embedded.account import Account, Way
from backend_watcher.embedded.install import InstallTree
from backend_watcher.errors import EmbeddedError

from .conftest import as_root

pytestmark = as_root


@pytest.fixture
def nobody(public_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Account:
    monkeypatch.setattr(tempfile, "tempdir", str(public_dir))
    return account.choose(Way.SWITCH)


@pytest.fixture
def closed(tmp_path: Path) -> InstallTree:
    """Valkey below a mode-700 folder, as in a virtual environment in somebody's home."""
    home = tmp_path / "home"
    shutil.copytree(install.find_valkey().bin, home / "bin")
    home.chmod(0o700)
    return install.find_valkey(home)


def test_a_closed_tree_is_copied_once_and_its_folder_stays_closed(closed: InstallTree, nobody: Account) -> None:
    copy = cache.reachable(closed, nobody, "valkey-server")
    assert copy.bin != closed.bin
    assert stat.S_IMODE(closed.folders[0].stat().st_mode) == 0o700
    made = copy.program("valkey-server").stat()
    assert made.st_uid == 0
    assert stat.S_IMODE(made.st_mode) == 0o755
    assert cache.reachable(closed, nobody, "valkey-server") == copy
    assert copy.program("valkey-server").stat().st_ino == made.st_ino


def test_a_copy_that_lost_a_file_is_made_again(closed: InstallTree, nobody: Account) -> None:
    copy = cache.reachable(closed, nobody, "valkey-server")
    copy.program("valkey-server").write_bytes(b"")
    assert cache.reachable(closed, nobody, "valkey-server") == copy
    assert copy.program("valkey-server").stat().st_size > 0
    assert [path.name for path in copy.folders[0].parent.parent.iterdir()] == [copy.folders[0].parent.name]


def test_an_open_tree_is_used_where_it_is(closed: InstallTree, nobody: Account, public_dir: Path) -> None:
    opened = install.find_valkey(shutil.copytree(closed.bin, public_dir / "bin"))
    assert cache.reachable(opened, nobody, "valkey-server") is opened


def test_a_place_that_somebody_else_can_write_to_is_not_used(
    closed: InstallTree, nobody: Account, public_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_SHARED_PLACES", ())
    (public_dir / "backend-watcher-0").mkdir()
    (public_dir / "backend-watcher-0").chmod(0o777)
    with pytest.raises(EmbeddedError, match="not ours alone"):
        cache.reachable(closed, nobody, "valkey-server")


def test_a_program_that_does_not_run_is_said_so(tmp_path: Path, nobody: Account) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "valkey-server").write_bytes(b"\x7fELF")
    (tmp_path / "bin" / "valkey-server").chmod(0o755)
    with pytest.raises(EmbeddedError, match="does not run"):
        cache.reachable(install.find_valkey(tmp_path), nobody, "valkey-server")
