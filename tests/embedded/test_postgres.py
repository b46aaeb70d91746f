"""A real PostgreSQL."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres, Way, cluster, install, process
from backend_watcher.errors import EmbeddedError

from .conftest import as_root, wait_until_gone


def ask(server: EmbeddedPostgres, query: str, dsn: str | None = None) -> object:
    with psycopg.connect(dsn or server.dsn, autocommit=True) as connection:
        row = connection.execute(query).fetchone()  # type: ignore[call-overload]
    return row[0]


def run(server: EmbeddedPostgres, statement: str) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[call-overload]


def test_each_way(way: Way) -> None:
    with EmbeddedPostgres(way=way) as server:
        assert server.way is way
        assert server.version.startswith(str(ask(server, "SHOW server_version")))
        assert stat.S_IMODE((server.folder / "data").stat().st_mode) == 0o700
        assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
        folder, pid = server.folder, server.pid
        if sys.platform == "linux":
            assert server.password.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        server.restart()
        server.kill()
        server.start()
        assert ask(server, "SELECT 1") == 1
    assert not folder.exists()


def test_it_is_ready_for_logical_replication_and_for_this_machine_only() -> None:
    with EmbeddedPostgres() as server:
        run(server, "CREATE PUBLICATION p FOR ALL TABLES")
        run(server, "SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
        assert ask(server, "SHOW max_slot_wal_keep_size") == "4GB"
        assert ask(server, "SHOW fsync") == "on"
        assert ask(server, "SHOW listen_addresses") == "127.0.0.1"
        assert str(ask(server, "SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'")).startswith("SCRAM")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            ask(server, "SELECT 1", server.dsn.replace(server.password, "guess"))


def test_settings_go_over_the_defaults_and_alter_system_over_both() -> None:
    with EmbeddedPostgres(settings={"wal_level": "replica", "my.note": "it's"}) as server:
        assert ask(server, "SHOW wal_level") == "replica"
        assert ask(server, "SHOW my.note") == "it's"
        run(server, "ALTER SYSTEM SET wal_level = 'logical'")
        server.restart()
        assert ask(server, "SHOW wal_level") == "logical"


def test_wrong_settings_are_an_error_with_the_line_of_the_log(
    public_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A place of its own: other tests have servers of theirs meanwhile.
    monkeypatch.setattr(tempfile, "tempdir", str(public_dir))
    server = EmbeddedPostgres(settings={"no_such_thing": "1"})
    with pytest.raises(EmbeddedError, match='unrecognized configuration parameter "no_such_thing"'):
        server.start()
    with pytest.raises(EmbeddedError, match="not started"):
        _ = server.dsn
    assert not server.running
    assert not list(public_dir.glob("watcher-postgresql-*"))


def test_a_given_folder_is_the_same_server_next_time(public_dir: Path, way: Way) -> None:
    with EmbeddedPostgres(public_dir / "kept", way=way) as server:
        run(server, "CREATE TABLE t AS SELECT 7 AS n")
        first = server.dsn
    with EmbeddedPostgres(public_dir / "kept", way=way) as server:
        assert server.dsn == first
        assert ask(server, "SELECT n FROM t") == 7
    (public_dir / "kept" / "password").unlink()
    with pytest.raises(EmbeddedError, match="not its password"):
        EmbeddedPostgres(public_dir / "kept", way=way).start()


@as_root
def test_a_given_folder_moves_from_one_way_to_another(public_dir: Path) -> None:
    with EmbeddedPostgres(public_dir / "kept", way=Way.SWITCH) as server:
        run(server, "CREATE TABLE t AS SELECT 7 AS n")
    with EmbeddedPostgres(public_dir / "kept") as server:
        assert server.way is Way.SWITCH
    with EmbeddedPostgres(public_dir / "kept", way=Way.NAMESPACE) as server:
        assert ask(server, "SELECT n FROM t") == 7


def test_after_a_kill_nothing_of_it_is_there_and_nothing_committed_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = EmbeddedPostgres(tmp_path / "kept").start()
    run(server, "CREATE TABLE t AS SELECT 7 AS n")
    monkeypatch.setattr(process, "FAMILY_SECONDS_MAX", 1.0)
    with closing(psycopg.connect(server.dsn, autocommit=True)) as connection:
        backend = connection.info.backend_pid
        # A backend that computes does not notice that its server is gone.
        connection.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1000000000000) n WHERE n % 7 = 8")
        server.kill()
    assert wait_until_gone(backend)
    assert (server.folder / "data" / "postmaster.pid").exists()
    with EmbeddedPostgres(tmp_path / "kept") as again:
        assert ask(again, "SELECT n FROM t") == 7
        assert "not properly shut down" in again.log_path.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_stale_lock_that_names_a_living_stranger_does_not_stop_it(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "kept").start()
    server.kill()
    lock = server.folder / "data" / "postmaster.pid"
    # Not our own number and not our parent's: PostgreSQL knows those cannot be a server.
    lines = lock.read_text().splitlines()
    stranger = EmbeddedPostgres().start()
    lock.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
    server.start()
    assert ask(server, "SELECT 1") == 1
    server.stop()
    stranger.stop()


def test_two_servers_at_once_and_never_on_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "LEAVING_SECONDS", 0.1)
    with EmbeddedPostgres(tmp_path / "kept") as one, EmbeddedPostgres() as two:
        assert one.port != two.port
        assert ask(one, "SELECT 1") == ask(two, "SELECT 1")
        with pytest.raises(EmbeddedError, match=f"in use by another PostgreSQL server, process {one.pid}"):
            EmbeddedPostgres(tmp_path / "kept").start()
        assert ask(one, "SELECT 1") == 1


def test_a_database_of_its_own(tmp_path: Path) -> None:
    for _ in range(2):
        with EmbeddedPostgres(tmp_path / "kept", database='my "shop"') as server:
            assert ask(server, "SELECT current_database()") == 'my "shop"'
            server.restart()
            assert ask(server, "SELECT current_database()") == 'my "shop"'
    with pytest.raises(EmbeddedError, match="could not be made"):
        EmbeddedPostgres(database="").start()


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
def test_each_mode_of_stopping(mode: str) -> None:
    server = EmbeddedPostgres().start()
    folder = server.folder
    server.stop(mode)
    assert not server.running
    assert not folder.exists()


def test_binaries_by_path_with_only_what_is_promised_to_be_needed(tmp_path: Path) -> None:
    whole = install.find_postgres()
    tree = tmp_path / "native"
    for name in ("lib", "share"):
        shutil.copytree(whole.bin.parent / name, tree / name)
    (tree / "bin").mkdir()
    for name in ("postgres", "initdb", "pg_ctl"):
        shutil.copy(whole.program(name), tree / "bin")
    # The wheel's initdb looks for its libraries beside the tree; other trees carry them in lib.
    libraries = os.pathsep.join(str(folder) for folder in whole.folders if folder.name.endswith(".libs"))
    with pytest.MonkeyPatch.context() as patch:
        if libraries:
            patch.setenv("LD_LIBRARY_PATH", libraries)
        with EmbeddedPostgres(install_dir=tree) as server:
            assert str(ask(server, "SHOW data_directory")).endswith("/data")


@as_root
def test_a_closed_install_tree_is_copied_for_nobody(
    tmp_path: Path, public_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = install.find_postgres()
    home = tmp_path / "home"
    for folder in whole.folders:
        target = home / folder.relative_to(whole.anchor)
        shutil.copytree(folder, target, symlinks=True, ignore=shutil.ignore_patterns("include"))
    home.chmod(0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(public_dir))
    monkeypatch.setattr(install, "_package_folder", lambda _: home / whole.folders[0].parent.relative_to(whole.anchor))
    with EmbeddedPostgres(way=Way.SWITCH) as server:
        assert ask(server, "SELECT 1") == 1
        if sys.platform == "linux":
            assert os.readlink(f"/proc/{server.pid}/exe").startswith(str(public_dir))
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_missing_binaries_are_an_error_that_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError) as caught:
        EmbeddedPostgres(install_dir=tmp_path).start()
    assert "WATCHER_POSTGRES_DIR" in caught.value.remedy
