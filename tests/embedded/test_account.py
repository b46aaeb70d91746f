"""Who runs a server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend_watcher.embedded import account
from backend_watcher.embedded.account import Account, Way
from backend_watcher.errors import EmbeddedError

from .conftest import as_root


def test_without_root_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert account.choose().way is Way.DIRECT


@as_root
def test_root_takes_a_namespace_where_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Account, "output_of", lambda *_: "")
    chosen = account.choose()
    assert chosen.way is Way.NAMESPACE
    assert chosen.uid != 0
    assert chosen.file_owner == (0, 0)


@as_root
def test_root_switches_where_namespaces_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Account, "output_of", lambda *_: None)
    chosen = account.choose()
    assert chosen.way is Way.SWITCH
    assert chosen.file_owner[0] == account.nobody_uid()
    with pytest.raises(EmbeddedError, match="user namespaces"):
        account.choose(Way.NAMESPACE)


@as_root
def test_root_leaves_data_with_its_owner() -> None:
    assert account.choose(owner=account.nobody_uid()).way is Way.SWITCH
    with pytest.raises(EmbeddedError, match="54321"):
        account.choose(owner=54321)


@as_root
def test_reach_is_asked_of_the_kernel(tmp_path: Path, public_dir: Path) -> None:
    nobody = account.choose(Way.SWITCH)
    tmp_path.chmod(0o700)
    assert not nobody.reaches(tmp_path)
    os.chown(public_dir, *nobody.file_owner)
    assert nobody.reaches(public_dir)


def test_the_environment_holds_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATA", "/elsewhere")
    monkeypatch.setenv("WATCHER_DSN", "postgresql://user:secret@host/db")
    assert not {"PGDATA", "WATCHER_DSN"} & set(account.environment())
