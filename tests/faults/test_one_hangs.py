"""One of six subscriptions hangs: the others do not notice, the source keeps nothing for it, and it catches up."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres

from .judge import distinct, judge, read_seen
from .ledger import Ledger
from .results import Part
from .running import pause, until
from .sampler import Memory
from .scale import dice, repeats
from .shell import RSS_MIB_MAX, SIX, HeldWal, Scene, p99
from .workload import PUT, Client, Workload

BEFORE_SECONDS = repeats(5, 30)
HANG_SECONDS = {"waits": repeats(8, 600), "blocks": repeats(8, 60)}
NOTE_BYTES = 1000
RATIO_WANTED = 2.0
RATIO_MAX = 10.0
"""On a machine with others on it; the true one is in the figures."""
FLOOR_SECONDS = 0.1
CATCH_UP_RATIO_MIN = 3.0


def noted(connection: psycopg.Connection, client: Client) -> None:
    """A row with a note that does not compress, so that the WAL grows."""
    note = client.dice.randbytes(NOTE_BYTES).hex()
    connection.execute(PUT, client.row(client.dice.choice(client.keys)) | {"note": note})


@pytest.mark.slow
@pytest.mark.quiet
@pytest.mark.timeout(repeats(120, 1200))
@pytest.mark.scenario("13", "one of six subscriptions hangs")
@pytest.mark.parametrize("how", ["waits", "blocks"])
def test_one_of_six_hangs(postgres: EmbeddedPostgres, tmp_path: Path, result: Part, how: str) -> None:
    scene = Scene(tmp_path, postgres, "six", FAULTS_HANG=how)
    *others, hanging = SIX
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with scene.run() as running, Memory(lambda: running.process.pid) as memory:
            running.wait_for_streaming(connection)
            with Workload(postgres.dsn, dice(f"one of six {how}").random(), noted, clients=1, pause_seconds=0.002) as w:
                until(lambda: scene.count(hanging) > 100, "beginning")
                began = time.time()
                pause(BEFORE_SECONDS)
                scene.turn_on("hang")
                pause(0.5)
                hung = time.time()
                at_hang = scene.count(others[0])
                with HeldWal(postgres.dsn) as wal:
                    pause(HANG_SECONDS[how])
                    stood = scene.count(hanging)
                released = time.time()
                rate = (scene.count(others[0]) - at_hang) / (released - hung)
                backlog = scene.count(others[0]) - stood
                scene.turn_on("release")
                took = until(lambda: scene.count(hanging) >= scene.count(others[0]) - rate / 20, "catching up")
                caught_up = (scene.count(hanging) - stood) / max(took, 0.02)
                w.stop()
            facts = ledger.facts()
            for name in SIX:
                until(lambda name=name: distinct(scene.seen(name)) >= len(facts), f"{name} taking all")
            assert running.end() == 0
    before = max(p99(scene.lags(name, began, hung - 0.5)) for name in others)
    during = max(p99(scene.lags(name, hung, released)) for name in others)
    figures = {
        "p99_before_ms_max": before * 1000,
        "p99_during_ms_max": during * 1000,
        "p99_ratio_max": during / before,
        "backlog_max": backlog,
        "input_per_second_max": rate,
        "catch_up_ratio_max": caught_up / rate,
        "rss_mib_max": memory.rss_max >> 20,
        "wal_written_kib_max": wal.written >> 10,
        "wal_unconfirmed_kib_max": max(wal.unconfirmed) >> 10,
        "wal_retained_kib_max": max(wal.retained) >> 10,
    }
    print(how, {name: round(value, 2) for name, value in figures.items()})
    result.add(runs=1, **figures)
    for name in SIX:
        judge(facts, read_seen(scene.seen(name))).check(result)
    assert backlog > rate * HANG_SECONDS[how] / 2, "it did not hang"
    # Flat: what is not confirmed does not grow with what is written.
    half = len(wal.unconfirmed) // 2
    assert max(wal.unconfirmed[half:]) <= max(2 * max(wal.unconfirmed[:half]), 2 << 20), wal.unconfirmed
    assert max(wal.unconfirmed) < wal.written / 2
    assert memory.rss_max >> 20 <= RSS_MIB_MAX
    assert during <= max(RATIO_MAX * before, FLOOR_SECONDS * RATIO_WANTED)
    assert caught_up >= CATCH_UP_RATIO_MIN * rate
