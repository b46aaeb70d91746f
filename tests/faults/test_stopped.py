"""SIGSTOP, long enough that others think it dead; then it goes on. What it may do then, and what it may not."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey
from backend_watcher.errors import ExitCode

from .judge import cache_differences, distinct, judge, read_seen
from .ledger import Ledger
from .results import Part
from .running import JOURNAL, Running, environment, pause, streams, until
from .scale import dice, repeats
from .workload import Workload

SENDER_SECONDS = 2
STOPPED_SECONDS = repeats(3, 20)
SETTINGS = {"wal_sender_timeout": f"{SENDER_SECONDS}s"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(repeats(180, 600)),
    pytest.mark.scenario("5", "stopped, replaced, continued"),
    pytest.mark.parametrize("postgres", [SETTINGS], indirect=True),
]


def deliver_some(postgres: EmbeddedPostgres, what: str, seconds: float = 1.0) -> None:
    with Workload(postgres.dsn, dice(what).random()) as workload:
        pause(seconds)
        workload.stop()


def test_a_stopped_instance_keeps_its_journal(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part
) -> None:
    """The lock is held by a process that does not run: the next one is refused, and the old one goes on later."""
    environ = environment(tmp_path, postgres, valkey)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with Running(tmp_path, environ) as old:
            old.wait_for_streaming(connection)
            with Workload(postgres.dsn, dice("stopped").random()) as workload:
                old.wait_for_delivery()
                old.send(signal.SIGSTOP)
                until(lambda: not streams(connection), "the server giving it up", 60.0)
                with Running(tmp_path, environ, often=True) as new:
                    assert new.wait() == ExitCode.TEMPORARY
                pause(STOPPED_SECONDS)
                workload.stop()
            facts = ledger.facts()
            old.send(signal.SIGCONT)
            caught_up = until(lambda: distinct(tmp_path / "seen") >= len(facts), "catching up")
            assert old.end() == 0
        result.add(runs=1, recovery_seconds_max=caught_up)
        judge(facts, read_seen(tmp_path / "seen")).check(result)
        assert cache_differences(connection, valkey.url) == 0


def test_another_journal_is_refused_the_slot(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    """Without a person's word nobody takes over a slot whose journal is elsewhere."""
    there, here = tmp_path / "there", tmp_path / "here"
    with psycopg.connect(postgres.dsn, autocommit=True) as connection, started(there, postgres, connection) as old:
        deliver_some(postgres, "refused")
        old.send(signal.SIGSTOP)
        until(lambda: not streams(connection), "the server giving it up", 60.0)
        with started(here, postgres) as new:
            assert new.wait() == ExitCode.DATA_SAFETY
            assert "--adopt-slot" in new.log()
            assert new.size() == 0
        old.send(signal.SIGCONT)
        old.wait_for_streaming(connection)
        assert old.end() == 0
    result.add(runs=1)


def test_who_was_replaced_delivers_nothing_more(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    """A person gave the slot to another journal: the old instance finds that out, and ends."""
    there, here = tmp_path / "there", tmp_path / "here"
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with started(there, postgres, connection) as old:
            deliver_some(postgres, "before")
            facts = ledger.facts()
            before = len(facts)
            until(lambda: distinct(there / "seen") >= before, "catching up")
            # Everything is confirmed, so nothing is owed by the old one.
            pause(1.0)
            old.send(signal.SIGSTOP)
            until(lambda: not streams(connection), "the server giving it up", 60.0)
            with started(here, postgres, None, "--adopt-slot") as new:
                until(lambda: streams(connection) or new.ended, "the new one streaming")
                deliver_some(postgres, "after", STOPPED_SECONDS)
                facts = ledger.facts()
                until(lambda: distinct(here / "seen") >= len(facts) - before, "the new one catching up")
                old.send(signal.SIGCONT)
                deliver_some(postgres, "later", 2.0)
                facts = ledger.facts()
                until(lambda: distinct(here / "seen") >= len(facts) - before, "the new one catching up")
                code = old.wait()
                assert new.end() == 0
        result.add(runs=1, delivered_by_the_old=distinct(there / "seen") - before)
        assert code == ExitCode.DATA_SAFETY, old.log()[-2000:]
        assert distinct(there / "seen") == before
        judge(facts, [*read_seen(there / "seen"), *read_seen(here / "seen")]).check(result)


@pytest.mark.parametrize("how", ["the lock file was removed", "the folder was moved and copied back"])
def test_whose_lock_is_gone_writes_nothing_more(
    postgres: EmbeddedPostgres, tmp_path: Path, result: Part, how: str
) -> None:
    """Somebody took the lock away under a stopped instance, and another one has the journal now."""
    folder = tmp_path / "one"
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with started(folder, postgres, connection) as old:
            deliver_some(postgres, "before")
            facts = ledger.facts()
            before = len(facts)
            until(lambda: distinct(folder / "seen") >= before, "catching up")
            pause(1.0)
            old.send(signal.SIGSTOP)
            until(lambda: not streams(connection), "the server giving it up", 60.0)
            journal = folder / JOURNAL
            if "removed" in how:
                journal.with_name(journal.name + ".lock").unlink()
            else:
                moved = tmp_path / "moved"
                journal.parent.rename(moved)
                shutil.copytree(moved, journal.parent)
            with Running(folder, environment(folder, postgres)) as new:
                until(lambda: streams(connection) or new.ended, "the new one streaming")
                assert not new.ended, new.log()[-2000:]
                deliver_some(postgres, "after")
                old.send(signal.SIGCONT)
                deliver_some(postgres, "later", 2.0)
                facts = ledger.facts()
                until(lambda: distinct(folder / "seen") >= len(facts), "the new one catching up")
                code = old.wait(30)
                assert new.end() == 0
        seen = read_seen(folder / "seen")
        by_old = len([one for one in seen if one.pid == old.process.pid])
        result.add(runs=1, delivered_by_the_old=by_old - before)
        assert code == ExitCode.DATA_SAFETY, old.log()[-3000:]
        assert by_old == before
        judge(facts, seen).check(result)


def started(
    folder: Path, postgres: EmbeddedPostgres, connection: psycopg.Connection | None = None, *arguments: str
) -> Running:
    folder.mkdir(exist_ok=True)
    running = Running(folder, environment(folder, postgres), "", *arguments)
    if connection is not None:
        running.wait_for_streaming(connection)
    return running
