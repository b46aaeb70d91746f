"""The watcher's own state from a backup: it goes on where PostgreSQL still can, and refuses where it cannot."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey
from backend_watcher.errors import ExitCode

from .judge import cache_differences, distinct, judge, read_seen
from .ledger import Ledger
from .results import Part
from .running import NAME, PROGRAM, Running, environment, pause, until
from .scale import dice, repeats
from .source import first_run, refused
from .workload import Workload

ROUNDS = repeats(2, 10)
BACKUPS = repeats(2, 10)
COMMAND_SECONDS_MAX = 60.0


def command(folder: Path, environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command beside the watcher."""
    line = [sys.executable, "-m", "backend_watcher", *words, "--app", str(PROGRAM)]
    return subprocess.run(
        line, cwd=folder, env=environ, capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX, check=False
    )


def done(folder: Path, environ: dict[str, str], *words: str) -> dict[str, object]:
    """Run a command that has to do what it is asked for."""
    found = command(folder, environ, *words, "--json")
    assert found.returncode == 0, (words, found.stdout, found.stderr)
    return json.loads(found.stdout)


@pytest.mark.slow
@pytest.mark.timeout(repeats(180, 900))
@pytest.mark.scenario("75", "its own state from a backup")
def test_a_disk_that_is_lost_is_replaced_from_the_backup(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part
) -> None:
    """Backed up after it stopped, however it did: whatever came since, PostgreSQL still has."""
    rolls = dice("backup")
    environ = environment(tmp_path, postgres, valkey)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        # The slot is made before the load begins, so that all of it is owed.
        first_run(tmp_path, environ, connection)
        with Workload(postgres.dsn, rolls.random(), pause_seconds=0.005) as workload:
            for number in range(ROUNDS):
                with Running(tmp_path, environ) as running:
                    running.wait_for_delivery()
                    pause(rolls.uniform(0, 1))
                    running.end(signal.SIGKILL if number % 2 else signal.SIGTERM)
                done(tmp_path, environ, "journal", "backup", f"backup-{number}")
                shutil.rmtree(running.journal.parent)
                pause(rolls.uniform(0, 0.5))
                done(tmp_path, environ, "journal", "restore", f"backup-{number}", "--yes", NAME)
                result.add(runs=1)
            workload.stop()
        facts = ledger.facts()
        with Running(tmp_path, environ) as last:
            until(lambda: distinct(tmp_path / "seen") >= len(facts), "catching up")
            assert last.end() == 0
        judge(facts, read_seen(tmp_path / "seen")).check(result)
        assert cache_differences(connection, valkey.url) == 0


@pytest.mark.slow
@pytest.mark.timeout(repeats(180, 900))
@pytest.mark.scenario("75", "its own state from a backup")
def test_a_backup_that_is_too_old_is_refused_and_the_one_aside_goes_on(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part
) -> None:
    """Made while it ran: PostgreSQL has forgotten since what the copy lacks. Nothing is delivered from it."""
    rolls = dice("old backup")
    environ = environment(tmp_path, postgres, valkey)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        # The slot is made before the load begins, so that all of it is owed.
        first_run(tmp_path, environ, connection)
        with Workload(postgres.dsn, rolls.random(), pause_seconds=0.005) as workload:
            with Running(tmp_path, environ) as running:
                running.wait_for_delivery()
                backups = []
                for number in range(BACKUPS):
                    pause(rolls.uniform(0, 0.3))
                    backups.append(done(tmp_path, environ, "journal", "backup", f"backup-{number}"))
                before = distinct(tmp_path / "seen")
                until(lambda: distinct(tmp_path / "seen") > before + 50, "going on")
                assert running.end() == 0
            assert [one["blocks"] for one in backups] == sorted(one["blocks"] for one in backups)
            for number in range(BACKUPS):
                put = done(tmp_path, environ, "journal", "restore", f"backup-{number}", "--yes", NAME)
                refused(tmp_path, environ, "this journal is an older copy")
                # The journal that was the right one lies aside, and is put back.
                aside = tmp_path / str(put["aside"])
                done(tmp_path, environ, "journal", "restore", str(aside), "--yes", NAME)
                result.add(runs=1, refused=1)
            workload.stop()
        facts = ledger.facts()
        with Running(tmp_path, environ) as last:
            until(lambda: distinct(tmp_path / "seen") >= len(facts), "catching up")
            assert last.end() == 0
        judge(facts, read_seen(tmp_path / "seen")).check(result)
        assert cache_differences(connection, valkey.url) == 0


@pytest.mark.slow
@pytest.mark.timeout(repeats(180, 600))
@pytest.mark.scenario("75", "its own state from a backup")
def test_what_is_delivered_again_from_an_lsn_is_all_from_there(
    postgres: EmbeddedPostgres, tmp_path: Path, result: Part
) -> None:
    """From a position of the journal on everything comes once more; from before the journal nothing does."""
    rolls = dice("again from an LSN")
    environ = environment(tmp_path, postgres)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with Running(tmp_path, environ) as running:
            running.wait_for_streaming(connection)
            with Workload(postgres.dsn, rolls.random(), pause_seconds=0.005) as workload:
                pause(1.0)
                workload.stop()
            facts = ledger.facts()
            until(lambda: distinct(tmp_path / "seen") >= len(facts), "delivery")
            first = read_seen(tmp_path / "seen")
            lsn, ordinal = rolls.choice(first).position
            owed = [one for one in first if one.position >= (lsn, ordinal)]
            place = f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}:{ordinal}"
            done(tmp_path, environ, "replay", "note", "--from", place)
            until(lambda: len(read_seen(tmp_path / "seen")) >= len(first) + len(owed), "all of it again")
            found = command(tmp_path, environ, "replay", "note", "--from", "0/1:0")
            assert found.returncode == ExitCode.CONFIGURATION
            assert "the journal begins at" in found.stderr
            assert running.end() == 0
        again = read_seen(tmp_path / "seen")[len(first) :]
        assert {one.position for one in again} == {one.position for one in owed}
        result.add(runs=1, again=len(again))
        judge(facts, first).check(result)
        # Once more in order, by itself; of a row only what is behind the position.
        versions: dict[tuple[str, int], list[int]] = {}
        for one in again:
            versions.setdefault((one.fact.table, one.fact.key), []).append(one.fact.version)
        assert all(found == sorted(found) for found in versions.values() if -1 not in found)
