"""The folder of one server."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from backend_watcher.embedded import account
from backend_watcher.embedded.account import Account, Way
from backend_watcher.embedded.folder import LOG_TAIL_LINES, open_folder, owner_of
from backend_watcher.errors import EmbeddedError

from .conftest import as_root

ME = Account(Way.DIRECT, os.geteuid(), os.getegid())


def test_a_temporary_folder_is_private_and_removed() -> None:
    folder = open_folder(None, ME, "Valkey")
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    folder.remove()
    assert not folder.path.exists()


def test_a_given_folder_is_kept_and_remembers(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "a" / "b", ME, "Valkey")
    path = folder.write("password", "secret\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    folder.remove()
    again = open_folder(tmp_path / "a" / "b", ME, "Valkey")
    assert again.read("password") == "secret"
    assert again.read("port") is None


def test_a_folder_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(EmbeddedError, match=r"thesis\.txt"):
        open_folder(tmp_path, ME, "Valkey")
    with pytest.raises(EmbeddedError, match="cannot be used"):
        open_folder(tmp_path / "thesis.txt", ME, "Valkey")
    open_folder(tmp_path / "v", ME, "Valkey")
    with pytest.raises(EmbeddedError, match="embedded PostgreSQL"):
        open_folder(tmp_path / "v", ME, "PostgreSQL")


def test_nothing_is_opened_through_a_link(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "f", ME, "Valkey")
    target = tmp_path / "target"
    target.write_text("before")
    (folder.path / "password").symlink_to(target)
    with pytest.raises(OSError):  # noqa: PT011 - ELOOP has no class of its own
        folder.read("password")
    folder.write("password", "after")
    assert target.read_text() == "before"
    assert folder.read("password") == "after"


def test_the_log_of_the_run_before_is_kept(tmp_path: Path) -> None:
    folder = open_folder(tmp_path, ME, "Valkey")
    folder.rotate_log()
    assert folder.log_tail() == "(the log is empty)"
    folder.log.write_text("\n".join(f"line {n}" for n in range(100)))
    assert folder.log_tail().splitlines()[0] == f"line {100 - LOG_TAIL_LINES}"
    folder.rotate_log()
    assert folder.log.read_text() == ""
    assert folder.log.with_name("server.log.1").exists()


@as_root
def test_a_folder_is_given_to_the_account_without_following_links(public_dir: Path, tmp_path: Path) -> None:
    nobody = account.choose(Way.SWITCH)
    outside = tmp_path / "outside"
    outside.touch()
    first = open_folder(public_dir / "f", ME, "Valkey")
    first.make_data()
    (first.data / "link").symlink_to(outside)
    folder = open_folder(first.path, nobody, "Valkey")
    assert owner_of(folder.data) == nobody.uid
    assert owner_of(folder.data / "link") == nobody.uid
    assert owner_of(outside) == 0
    assert owner_of(folder.write("port", "1")) == nobody.uid


@as_root
def test_a_folder_that_the_account_cannot_reach_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(EmbeddedError, match="does not reach"):
        open_folder(tmp_path / "f", account.choose(Way.SWITCH), "Valkey")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
