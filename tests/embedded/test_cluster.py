"""A PostgreSQL data folder, without a server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend_watcher.embedded import cluster
from backend_watcher.embedded.folder import Folder
from backend_watcher.errors import EmbeddedError

LOCK = "{pid}\n/data\n1700000000\n5432\n\n127.0.0.1\n  1 2\n{status}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path, keep=True)
    made.make_data()
    return made


def lock(folder: Folder, pid: int, status: str = "ready   ") -> Path:
    path = folder.data / "postmaster.pid"
    path.write_text(LOCK.format(pid=pid, status=status))
    return path


def test_ready_is_what_this_server_says(folder: Folder) -> None:
    assert not cluster.is_ready(folder.data, 42)
    lock(folder, 42, "starting")
    assert not cluster.is_ready(folder.data, 42)
    lock(folder, 42)
    assert cluster.is_ready(folder.data, 42)
    assert not cluster.is_ready(folder.data, 43)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_lock_whose_number_belongs_to_somebody_else_is_stale(folder: Folder) -> None:
    path = lock(folder, os.getpid())
    cluster.clear_lock(folder.data)
    assert not path.exists()
    cluster.clear_lock(folder.data)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_lock_of_a_process_that_works_there_is_respected(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "LEAVING_SECONDS", 0.1)
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, cwd=folder.data) as other:
        path = lock(folder, other.pid)
        with pytest.raises(EmbeddedError, match=f"process {other.pid}"):
            cluster.clear_lock(folder.data)
        assert path.exists()
        lock(folder, other.pid, "stopping")
        assert other.stdin is not None
        other.stdin.close()
        cluster.clear_lock(folder.data)
        assert not path.exists()


def test_settings_are_quoted(folder: Folder) -> None:
    cluster.write_settings(folder, {"wal_level": "replica", "my.note": "it's a \\ sign"})
    lines = (folder.path / "embedded.conf").read_text().splitlines()
    assert "wal_level = 'replica'" in lines
    assert "my.note = 'it''s a \\\\ sign'" in lines
    assert "max_slot_wal_keep_size = '4GB'" in lines


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"a b": "1"}, "cannot be written"), ({"a": "1\nb = 2"}, "cannot be written"), ({"PORT": "1"}, "port")],
)
def test_settings_that_cannot_be_written(folder: Folder, settings: dict[str, str], message: str) -> None:
    with pytest.raises(EmbeddedError, match=message):
        cluster.write_settings(folder, settings)


def test_data_of_another_version_is_refused(folder: Folder) -> None:
    with pytest.raises(EmbeddedError, match="unknown version"):
        cluster.check_cluster(folder, "18.6")
    (folder.data / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedError, match=r"PostgreSQL 17, and this is 18\.6"):
        cluster.check_cluster(folder, "18.6")
    cluster.check_cluster(folder, "17.1")
