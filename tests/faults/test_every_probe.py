"""`kill -9` at every named place of the code, for each kind of sink: nothing lost, no phantoms, order kept."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import psycopg
import pytest

from backend_watcher import probes
from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey

from .judge import cache_differences, distinct, judge, read_lines, read_seen, without_repeats
from .ledger import Ledger
from .results import Part
from .running import SLOT, Running, environment, pause, until
from .scale import dice, repeats
from .workload import IN_PARTS, Workload, mixed

# Reached once, when there is neither slot nor identity.
AT_FIRST_START = ("capture.publication_created", "capture.slot_created", "capture.identity_saved")
AT_THE_END = ("service.draining",)
# Once in each large transaction.
SELDOM = ("capture.before_streamed", "capture.streamed_piece")
# Only when nothing is under way, which a steady load seldom allows.
RARE = ("capture.before_advance",)
EVERY_LOAD = ("delivery.before_write", "delivery.after_write", "delivery.before_cursor", "delivery.after_cursor")
# Other rooms, and what only a failing key or a person reaches, belong to other scenarios.
ROOMS = ("capture.", "journal.", "service.")
HERE = sorted(name for name in probes.NAMES if name.startswith(ROOMS) or name in EVERY_LOAD)
REACH_SECONDS_MAX = 20.0
TIMES = repeats(1, 20)
TIMES_RARE = repeats(1, 2)
"""Not reached, each costs REACH_SECONDS_MAX."""
OWED_SECONDS = 0.5
ALL = "handler,cache,file"
SINKS = [(ALL, "capture."), (ALL, "journal."), (ALL, "service."), *((one, "delivery.") for one in ALL.split(","))]
"""Before the sinks, where all are the same, and in each sink. Each room alone, so that they can be run side by side."""


def places(room: str) -> list[str]:
    """Every place of a room that a load comes to again and again."""
    return [name for name in HERE if name.startswith(room) and name not in AT_FIRST_START]


@pytest.mark.slow
@pytest.mark.timeout(repeats(240, 1500))
@pytest.mark.scenario("2", "kill -9 at every probe")
@pytest.mark.parametrize(("sinks", "room"), SINKS)
@pytest.mark.parametrize("postgres", [IN_PARTS], indirect=True, ids=["in parts"])
def test_killed_at_every_place(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part, sinks: str, room: str
) -> None:
    rolls = dice(f"every probe, {room} {sinks}")
    environ = environment(tmp_path, postgres, valkey, FAULTS_SINKS=sinks, FAULTS_CHECKPOINT_BYTES="20000")
    not_reached = []
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        begin(connection, tmp_path, environ, result, room)
        with Workload(postgres.dsn, rolls.random(), mixed, pause_seconds=repeats(2, 10) / 1000) as workload:
            for time in range(TIMES):
                for name in places(room):
                    if name in RARE and time >= TIMES_RARE:
                        continue
                    reached = kill_at(connection, tmp_path, environ, name, rolls.randint(1, 10))
                    result.add(runs=reached)
                    not_reached += [] if reached else [name]
            # Something is owed after the last kill, so that its delivery can be timed.
            pause(OWED_SECONDS)
            workload.stop()
        facts = ledger.facts()
        with Running(tmp_path, environ) as last:
            if sinks != "cache":  # which writes into no file
                result.add(recovery_seconds_max=last.wait_for_delivery())
            for one in sinks.split(","):
                until(lambda one=one: caught_up(connection, valkey, tmp_path, one, len(facts)), f"{one} catching up")
            assert last.end(signal.SIGTERM) == 0
    if "handler" in sinks:
        judge(facts, read_seen(tmp_path / "seen")).check(result)
    if "file" in sinks:
        # The file does not say which process wrote a line.
        judge(facts, without_repeats(read_lines(tmp_path / "lines"))).check(result)
    print(f"{room} {sinks}: not reached: {sorted(set(not_reached)) or 'none'}")
    assert not set(not_reached) - set(RARE)


def begin(connection: psycopg.Connection, folder: Path, environ: dict[str, str], result: Part, room: str) -> None:
    """Start for the first time, again and again, and be killed at each place that is reached only then."""
    for time in range(TIMES if room == "capture." else 1):
        if time:
            connection.execute("SELECT pg_drop_replication_slot(%s)", [SLOT])
            connection.execute(f"DROP PUBLICATION {SLOT}")
            shutil.rmtree(folder / ".watcher")
        for name in AT_FIRST_START if room == "capture." else ():
            with Running(folder, environ, f"{name}=kill", often=True) as running:
                assert running.wait(REACH_SECONDS_MAX) == -signal.SIGKILL, running.log()[-2000:]
            result.add(runs=1)
        with Running(folder, environ, often=True) as running:
            running.wait_for_streaming(connection)
            assert running.end() == 0


def kill_at(connection: psycopg.Connection, folder: Path, environ: dict[str, str], name: str, nth: int) -> bool:
    """Run until the place is reached for the nth time; say whether it was."""
    at = 1 if name in (*AT_THE_END, *RARE) else min(nth, 2) if name in SELDOM else nth
    with Running(folder, environ, f"{name}=kill@{at}", often=True) as running:
        if name in AT_THE_END:
            running.wait_for_streaming(connection)
            running.send(signal.SIGTERM)
        try:
            code = running.wait(REACH_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            return False
        assert code == -signal.SIGKILL, f"{name}: {code}\n{running.log()[-2000:]}"
        return True


def caught_up(connection: psycopg.Connection, valkey: EmbeddedValkey, folder: Path, sinks: str, owed: int) -> bool:
    if sinks == "cache":
        return cache_differences(connection, valkey.url) == 0
    if sinks == "handler":
        return distinct(folder / "seen") >= owed
    return len(without_repeats(read_lines(folder / "lines"))) >= owed
