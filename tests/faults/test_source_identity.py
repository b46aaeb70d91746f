"""Another server behind the same name, an older copy of the right one, another history of it, an older journal."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from backend_watcher.embedded import EmbeddedPostgres

from .judge import judge, read_seen
from .results import Part
from .running import JOURNAL, Running, environment, pause, streams, until
from .source import cold_copy, copy_folder, first_run, insert, refused, seen, stopped
from .workload import SCHEMA

CONFIRMED = "SELECT confirmed_flush_lsn >= %s FROM pg_replication_slots WHERE slot_name = 'watcher_faults'"
SYNCED = """
SELECT 1 FROM pg_replication_slots
WHERE slot_name = 'watcher_faults' AND synced AND NOT temporary AND invalidation_reason IS NULL
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that the account of a server can reach."""
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="watcher-identity-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def server(home: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(home / "one") as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(SCHEMA)
        yield server


def swap(server: EmbeddedPostgres, copy: Path) -> None:
    """Put a copy where the data of a server was, and start it on the same port."""
    folder = server.folder
    server.stop()
    shutil.rmtree(folder)
    copy_folder(copy, folder)
    server.start()


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.scenario("24", "another server, backup or history")
@pytest.mark.parametrize("running", [False, True], ids=["while we are down", "while we run"])
def test_an_older_backup(server: EmbeddedPostgres, home: Path, tmp_path: Path, result: Part, running: bool) -> None:
    environ = environment(tmp_path, server)
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        first_run(tmp_path, environ, connection)
    cold_copy(server, home / "copy")
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        insert(connection, 101, 200)
        with Running(tmp_path, environ) as watcher:
            watcher.wait_for_streaming(connection)
            until(lambda: seen(watcher) >= 200, "delivery")
            if running:
                connection.close()
                swap(server, home / "copy")
                took = stopped(watcher, "older backup")
                result.add(noticed_seconds_max=took)
            else:
                assert watcher.end() == 0
    if not running:
        swap(server, home / "copy")
    refused(tmp_path, environ, "older backup")
    result.add(runs=1)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.scenario("24", "another server, backup or history")
def test_another_server_behind_the_same_name(
    server: EmbeddedPostgres, home: Path, tmp_path: Path, result: Part
) -> None:
    environ = environment(tmp_path, server)
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        first_run(tmp_path, environ, connection)
    port, password = server.port, server.password
    server.stop()
    with EmbeddedPostgres(home / "two", port=port) as other:
        with psycopg.connect(other.dsn, autocommit=True) as connection:
            connection.execute(SCHEMA)
            connection.execute(sql.SQL("ALTER ROLE postgres PASSWORD {}").format(sql.Literal(password)))
        refused(tmp_path, environ, "the journal was written from cluster")
    result.add(runs=1)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.scenario("24", "another server, backup or history")
def test_another_history(server: EmbeddedPostgres, home: Path, tmp_path: Path, result: Part) -> None:
    """Recovered from an older copy to a timeline of its own, and written to until it is far ahead."""
    environ = environment(tmp_path, server)
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        first_run(tmp_path, environ, connection)
    cold_copy(server, home / "copy")
    with psycopg.connect(server.dsn, autocommit=True) as connection, Running(tmp_path, environ) as watcher:
        watcher.wait_for_streaming(connection)
        insert(connection, 101, 200)
        until(lambda: seen(watcher) >= 200, "delivery")
        assert watcher.end() == 0
    data = home / "copy" / "data"
    signal = data / "recovery.signal"
    signal.touch()
    shutil.chown(signal, data.stat().st_uid, data.stat().st_gid)
    with (data / "postgresql.auto.conf").open("a") as file:
        file.write("restore_command = 'false'\n")
    swap(server, home / "copy")
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        until(lambda: connection.execute("SELECT NOT pg_is_in_recovery()").fetchone()[0], "a promotion")
        insert(connection, 5001, 60_000)
    refused(tmp_path, environ, "timeline 1, the server is on 2", "which began at")
    result.add(runs=1)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.scenario("24", "another server, backup or history")
def test_an_older_or_a_lost_journal(server: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    environ = environment(tmp_path, server)
    journal = (tmp_path / JOURNAL).parent
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        first_run(tmp_path, environ, connection)
        shutil.copytree(journal, tmp_path / "yesterday")
        with Running(tmp_path, environ) as watcher:
            watcher.wait_for_streaming(connection)
            insert(connection, 101, 200)
            until(lambda: seen(watcher) >= 200, "delivery")
            # Before it is confirmed the older journal misses nothing: the slot sends it again.
            written = connection.execute("SELECT pg_current_wal_lsn()").fetchone()[0]
            until(lambda: connection.execute(CONFIRMED, [written]).fetchone()[0], "confirmation")
            assert watcher.end() == 0
        shutil.rmtree(journal)
        refused(tmp_path, environ, "is new")
        shutil.rmtree(journal)
        shutil.copytree(tmp_path / "yesterday", journal)
        refused(tmp_path, environ, "this journal is an older copy")
    result.add(runs=2)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.scenario("24", "another server, backup or history")
@pytest.mark.parametrize("synced", [True, False], ids=["its slot was synced", "its slot was not"])
def test_a_standby_is_promoted(home: Path, tmp_path: Path, result: Part, synced: bool) -> None:
    """PostgreSQL 17 and later copy a failover slot; where that was done in time, the journal goes on."""
    with EmbeddedPostgres(home / "one", settings={"hot_standby_feedback": "on"}) as first:
        environ = environment(tmp_path, first)
        with psycopg.connect(first.dsn, autocommit=True) as connection:
            connection.execute(SCHEMA)
            first_run(tmp_path, environ, connection)
            connection.execute("SELECT pg_create_physical_replication_slot('standby', true)")
        cold_copy(first, home / "two")
        standby = make_standby(first, home / "two", synced)
        with standby, psycopg.connect(first.dsn, autocommit=True) as connection:
            with Running(tmp_path, environ) as watcher:
                watcher.wait_for_streaming(connection)
                insert(connection, 101, 200)
                until(lambda: seen(watcher) >= 200, "delivery")
                if synced:
                    # A copy lasts only once the original has moved past where the copy began.
                    with psycopg.connect(standby.dsn, autocommit=True) as other:
                        until(lambda: nudge(connection) and other.execute(SYNCED).fetchone(), "a synced slot", 90.0)
                assert watcher.end() == 0
            with psycopg.connect(standby.dsn, autocommit=True) as other:
                insert(connection, 201, 300)
                connection.close()
                # A fast shutdown sends the standby everything there is.
                first.stop()
                other.execute("SELECT pg_promote()")
                insert(other, 301, 400)
                there = environment(tmp_path, standby)
                if not synced:
                    refused(tmp_path, there, "was not copied")
                    result.add(runs=1)
                    return
                with Running(tmp_path, there) as watcher:
                    until(lambda: streams(other) or watcher.ended, "streaming")
                    until(lambda: seen(watcher) >= 400 or watcher.ended, "the rest")
                    assert watcher.end() == 0, watcher.log()[-3000:]
    found = read_seen(tmp_path / "seen")
    verdict = judge([one.fact for one in found], found)
    assert sorted({one.fact.key for one in found}) == list(range(1, 401))
    result.add(runs=1, lost=400 - len({one.fact.key for one in found}), duplicates=verdict.duplicates)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.scenario("23", "a failover to a standby that is behind")
@pytest.mark.parametrize("waits", [True, False], ids=["the slot waits for it", "the slot does not wait"])
def test_the_standby_is_behind_the_watcher(home: Path, tmp_path: Path, result: Part, waits: bool) -> None:
    """What was delivered and is not on the new primary is none with synchronized_standby_slots; else it is named."""
    with EmbeddedPostgres(home / "one", settings={"hot_standby_feedback": "on"}) as first:
        environ = environment(tmp_path, first)
        with psycopg.connect(first.dsn, autocommit=True) as connection:
            connection.execute(SCHEMA)
            first_run(tmp_path, environ, connection)
            connection.execute("SELECT pg_create_physical_replication_slot('standby', true)")
        cold_copy(first, home / "two")
        with (
            make_standby(first, home / "two", synced=True) as standby,
            psycopg.connect(standby.dsn, autocommit=True) as other,
        ):
            with psycopg.connect(first.dsn, autocommit=True) as connection, Running(tmp_path, environ) as watcher:
                until(lambda: other.execute("SELECT 1 FROM pg_stat_wal_receiver").fetchone(), "a walreceiver")
                if waits:
                    # Only now: without its standby the slot would not move at all.
                    connection.execute("ALTER SYSTEM SET synchronized_standby_slots = 'standby'")
                    connection.execute("SELECT pg_reload_conf()")
                watcher.wait_for_streaming(connection)
                insert(connection, 101, 200)
                until(lambda: seen(watcher) >= 200, "delivery")
                until(lambda: nudge(connection) and other.execute(SYNCED).fetchone(), "a synced slot", 90.0)
                until(lambda: other.execute("SELECT count(*) FROM items").fetchone() == (200,), "replication")
                # It hears nothing of the primary any more.
                other.execute("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'")
                other.execute("SELECT pg_reload_conf()")
                until(lambda: not other.execute("SELECT 1 FROM pg_stat_wal_receiver").fetchone(), "its deafness")
                insert(connection, 201, 300)
                if not waits:
                    until(lambda: seen(watcher) >= 300, "delivery")
                pause(2.0)
                watcher.end()
            first.stop("immediate")
            other.execute("SELECT pg_promote()")
            insert(other, 301, 400)
            there = environment(tmp_path, standby)
            if not waits:
                refused(tmp_path, there, "what lies between is not on the server", "synchronized_standby_slots")
                beyond, phantoms = _told(tmp_path), _phantoms(tmp_path, other)
                result.add(runs=1, told_phantoms=len(beyond))
                assert beyond == phantoms == set(range(201, 301))
                return
            with Running(tmp_path, there) as last:
                until(lambda: seen(last) >= 300 or last.ended, "the rest")
                assert last.end() == 0, last.log()[-3000:]
            phantoms = _phantoms(tmp_path, other)
    keys = {one.fact.key for one in read_seen(tmp_path / "seen")}
    result.add(runs=1, lost=300 - len(keys), phantoms=len(phantoms))
    assert (phantoms, keys) == (set(), {*range(1, 201), *range(301, 401)})


def _told(folder: Path) -> set[int]:
    """Return the keys that were committed after where the watcher says that the histories parted."""
    parted = re.findall(r"which began at ([0-9A-F]+/[0-9A-F]+)", (folder / "log").read_text())[-1]
    return {one.fact.key for one in read_seen(folder / "seen") if one.position[0] >= lsn(parted)}


def _phantoms(folder: Path, connection: psycopg.Connection) -> set[int]:
    """Return the keys that were delivered and are not there."""
    there = {key for (key,) in connection.execute("SELECT id FROM items")}
    return {one.fact.key for one in read_seen(folder / "seen")} - there


def lsn(text: str) -> int:
    high, low = text.split("/")
    return (int(high, 16) << 32) | int(low, 16)


def make_standby(first: EmbeddedPostgres, folder: Path, synced: bool) -> EmbeddedPostgres:
    data = folder / "data"
    for name in ("standby.signal",):
        (data / name).touch()
        shutil.chown(data / name, data.stat().st_uid, data.stat().st_gid)
    for slot in (data / "pg_replslot").iterdir():
        # A base backup has none of them.
        shutil.rmtree(slot)
    (folder / "port").unlink(missing_ok=True)
    target = f"host=127.0.0.1 port={first.port} user=postgres password={first.password} dbname=postgres"
    settings = {"primary_conninfo": target, "primary_slot_name": "standby", "hot_standby_feedback": "on"}
    return EmbeddedPostgres(folder, settings={**settings, "sync_replication_slots": "on" if synced else "off"})


def nudge(connection: psycopg.Connection) -> bool:
    """Let the primary's slot move, and with it the standby's copy."""
    connection.execute("SELECT pg_log_standby_snapshot()")
    return True
