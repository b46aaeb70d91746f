"""The journal is lost, cut short, changed or older than it was: it is found out, or nothing is missing."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.errors import ExitCode

from .damage import DAMAGES
from .judge import distinct, judge, read_seen
from .ledger import Fact, Ledger
from .results import Part
from .running import JOURNAL, SLOT, Running, environment, pause, streams, until
from .scale import dice, repeats
from .workload import SCHEMA, Workload

ROUNDS = repeats(1, 3)
OFTEN = repeats(3, 15)
LOOK_SECONDS = 20.0
TEMPLATE = "slot_as_it_was"


@dataclass
class Left:
    """A watcher that was killed: its folder, its slot (as TEMPLATE), and everything it owes."""

    server: EmbeddedPostgres
    connection: psycopg.Connection
    folder: Path
    facts: list[Fact]

    def again_in(self, folder: Path) -> None:
        """Put everything back as it was left, with its files in another folder."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        until(lambda: not streams(self.connection), "the one before leaving")
        drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s"
        self.connection.execute(drop, [SLOT])
        self.connection.execute("SELECT pg_copy_logical_replication_slot(%s, %s)", [TEMPLATE, SLOT])


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    """A journal of which some is delivered, some not, with more at the source; and its copy of yesterday."""
    folder, rolls = tmp_path_factory.mktemp("left"), dice("damage")
    with EmbeddedPostgres() as server, psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(SCHEMA)
        ledger = Ledger(connection)
        # The handler is slow, so that at the end some of the journal is still to be delivered.
        environ = environment(folder, server, FAULTS_DELAY="0.02")
        with Running(folder, environ, often=True) as running:
            running.wait_for_streaming(connection)
            load(server, rolls, 0.3)
            pause(0.3)
            assert running.end() == 0
        shutil.copyfile(running.journal, running.journal.with_name("yesterday"))
        with Running(folder, environ, often=True) as running:
            running.wait_for_streaming(connection)
            load(server, rolls, 0.5)
            pause(0.5)
            running.process.kill()
            running.wait()
        load(server, rolls, 0.3)
        until(lambda: not streams(connection), "the walsender leaving")
        connection.execute("SELECT pg_copy_logical_replication_slot(%s, %s)", [SLOT, TEMPLATE])
        settle(running.journal)
        yield Left(server, connection, folder, ledger.facts())


def test_undamaged_it_goes_on(left: Left, tmp_path: Path) -> None:
    """The other tests show something only because this one does."""
    assert one_round(left, tmp_path / "whole", lambda _journal, _rolls: None, random.Random(1), Part()) is None


@pytest.mark.slow
@pytest.mark.timeout(repeats(120, 900))
@pytest.mark.scenario("7", "journal deleted, cut, flipped, older")
@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_journal_is_found_out_or_harmless(left: Left, tmp_path: Path, result: Part, what: str) -> None:
    rolls = dice(f"damage: {what}")
    for number in range(OFTEN if what.startswith("bit") else ROUNDS):
        stopped = one_round(left, tmp_path / str(number), DAMAGES[what], rolls, result)
        print(f"{what}: {stopped or 'went on'}")
        result.add(runs=1, found_out=stopped is not None, harmless=stopped is None)


def one_round(left: Left, folder: Path, damage, rolls: random.Random, result: Part) -> str | None:
    """Return how it stopped, None where it went on and nothing was lost."""
    left.again_in(folder)
    before = distinct(folder / "seen")
    damage(folder / JOURNAL, rolls)
    owed = len(left.facts)
    with Running(folder, environment(folder, left.server)) as again:
        until(
            lambda: again.ended or distinct(folder / "seen") >= owed,
            "stopping, or catching up",
            LOOK_SECONDS,
        )
        if not again.ended:
            judge(left.facts, read_seen(folder / "seen")).check(result)
            assert again.end() == 0
            return None
        # Whoever finds it: what one reader cannot trust, nobody can.
        assert again.wait() == ExitCode.DATA_SAFETY, again.log()[-3000:]
        assert "remedy" in again.log()
        assert "Traceback" not in again.log()
        phantoms = judge(left.facts, read_seen(folder / "seen")).phantoms
        result.add(phantoms=phantoms)
        assert phantoms == 0
        assert distinct(folder / "seen") >= before
        return "exit 4"


def load(server: EmbeddedPostgres, rolls: random.Random, seconds: float) -> None:
    with Workload(server.dsn, rolls.random()) as workload:
        pause(seconds)
        workload.stop()


def settle(journal: Path) -> None:
    """Bring everything into the one file, as the next start would."""
    connection = sqlite3.connect(journal)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
