"""The watcher's disk is full, or cannot be written, or fails to sync: it stops confirming, and harms nobody."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.errors import ExitCode
from backend_watcher.events.position import parse_lsn

from .judge import distinct, judge, read_seen
from .ledger import Ledger
from .results import Part
from .running import SLOT, Running, environment, pause, until
from .sampler import AckSafety, Memory
from .scale import dice, repeats
from .workload import Workload

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(repeats(180, 600)),
    pytest.mark.scenario("42", "disk full, read only, failing fsync"),
]
ROUNDS = repeats(1, 5)
SIZE = "24m"
RSS_MAX = 300 << 20
RESUME_SECONDS_MAX = 10.0
FULL = "the journal's disk is full"
FULL_SECONDS_MAX = 60.0
CONFIRMED = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = %s"


@contextlib.contextmanager
def small_disk(folder: Path, size: str = SIZE) -> Iterator[Path]:
    """A file system of its own, seen by everybody for as long as the test lasts."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False, timeout=20)
    if done.returncode != 0:
        pytest.skip("only root with the right to mount can make a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False, timeout=20)


def confirmed(connection: psycopg.Connection) -> int:
    row = connection.execute(CONFIRMED, [SLOT]).fetchone()
    return parse_lsn(row[0])


def test_a_full_disk_is_waited_for(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    """Nothing is confirmed while it is full; it goes on by itself when there is room, and nothing is lost."""
    rolls = dice("full disk")
    with small_disk(tmp_path / ".watcher") as disk, psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with (
            Running(tmp_path, environment(tmp_path, postgres)) as running,
            AckSafety(postgres.dsn, running.journal) as safety,
            Memory(lambda: running.process.pid) as memory,
        ):
            running.wait_for_streaming(connection)
            with Workload(postgres.dsn, rolls.random()) as workload:
                for number in range(ROUNDS):
                    running.wait_for_delivery()
                    fill(disk / "ballast")
                    # What the journal's files have room for is still written.
                    until(lambda number=number: running.log().count(FULL) > number, "being full", FULL_SECONDS_MAX)
                    pause(1.0)
                    stood = confirmed(connection)
                    pause(3.0)
                    assert confirmed(connection) == stood, "confirmed although nothing can be written"
                    assert not running.ended, running.log()[-3000:]
                    (disk / "ballast").unlink()
                    moving = until(lambda stood=stood: confirmed(connection) > stood, "confirming", RESUME_SECONDS_MAX)
                    result.add(runs=1, recovery_seconds_max=moving)
                workload.stop()
            facts = ledger.facts()
            until(lambda: distinct(tmp_path / "seen") >= len(facts), "catching up")
            assert running.end() == 0
        result.add(ack_violations=safety.violations, rss_mib_max=memory.rss_max >> 20)
        assert safety.violations == 0
        assert memory.rss_max <= RSS_MAX
        judge(facts, read_seen(tmp_path / "seen")).check(result)


def fill(path: Path) -> None:
    """Take all the room there is."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_a_read_only_file_system_is_refused_at_once(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    with small_disk(tmp_path / ".watcher") as disk, psycopg.connect(postgres.dsn, autocommit=True) as connection:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True, timeout=20)
        with Running(tmp_path, environment(tmp_path, postgres)) as running:
            code = running.wait()
        result.add(runs=1)
        assert code == ExitCode.DATA_SAFETY, running.log()
        assert "remedy" in running.log()
        assert "Traceback" not in running.log()
        assert connection.execute("SELECT count(*) FROM pg_replication_slots").fetchone() == (0,)


def test_a_failed_sync_is_never_taken_back(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    """An error at the commit: nothing after it is confirmed, the process ends with exit code 4, the next goes on."""
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with Running(tmp_path, environment(tmp_path, postgres), "journal.before_commit=error@20") as running:
            running.wait_for_streaming(connection)
            with (
                AckSafety(postgres.dsn, running.journal) as safety,
                Workload(postgres.dsn, dice("failed sync").random()) as workload,
            ):
                code = running.wait()
                workload.stop()
        assert code == ExitCode.DATA_SAFETY, running.log()[-3000:]
        assert safety.violations == 0
        catch_up(connection, postgres, tmp_path, ledger, result)


def catch_up(
    connection: psycopg.Connection, postgres: EmbeddedPostgres, folder: Path, ledger: Ledger, result: Part
) -> None:
    facts = ledger.facts()
    with Running(folder, environment(folder, postgres)) as again:
        result.add(runs=1, recovery_seconds_max=again.wait_for_streaming(connection))
        until(lambda: distinct(folder / "seen") >= len(facts), "catching up")
        assert again.end() == 0
    judge(facts, read_seen(folder / "seen")).check(result)
