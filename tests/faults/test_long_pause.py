"""One subscription stands for long and the journal is small: capture waits and says so, and nothing is dropped."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.journal.space import CHECKPOINT_BYTES

from .judge import distinct, judge, read_seen
from .ledger import Ledger
from .results import Part
from .running import pause, until
from .sampler import AckSafety, Memory
from .scale import dice, repeats
from .shell import RSS_MIB_MAX, Scene
from .workload import PUT, Client, Workload

QUOTA_BYTES = 1 << 20
WAL_BYTES = 2 * CHECKPOINT_BYTES
"""What the journal has not copied into its file yet."""
SECONDS = repeats(3, 300)
"""Of load after the journal is full."""


def large(connection: psycopg.Connection, client: Client) -> None:
    """Rows of some kilobytes that do not compress."""
    note = client.dice.randbytes(4000).hex()
    connection.execute(PUT, client.row(client.dice.choice(client.keys)) | {"note": note})


@pytest.mark.slow
@pytest.mark.timeout(repeats(120, 900))
@pytest.mark.scenario("55", "one subscription disabled for long")
def test_at_the_quota_capture_waits(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    quota = {"WATCHER_JOURNAL__QUOTA_BYTES": str(QUOTA_BYTES), "WATCHER_JOURNAL__RETAIN_SECONDS": "0"}
    scene = Scene(tmp_path, postgres, "two", **quota)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with scene.run() as running, Memory(lambda: running.process.pid) as memory:
            running.wait_for_streaming(connection)
            with (
                AckSafety(postgres.dsn, running.journal) as safety,
                Workload(postgres.dsn, dice("long pause").random(), large, pause_seconds=0.005) as workload,
            ):
                until(lambda: scene.count("there") > 50, "delivering")
                scene.shell("pause", "there", "--reason", "for long")
                until(lambda: scene.state().full, "being full", 60.0)
                pause(1.0)
                at_full, here = scene.status(), scene.count("here")
                pause(SECONDS)
                later, went_on = scene.status(), scene.count("here") - here
                said = scene.shell("status")
                workload.stop()
            check_said(at_full, later, said)
            size = scene.journal_bytes()
            assert not running.ended, running.log()[-2000:]
            facts = ledger.facts()
            scene.shell("resume", "there")
            took = until(lambda: distinct(scene.seen("there")) == len(facts), "resuming")
            until(lambda: distinct(scene.seen("here")) == len(facts), "the other")
            until(lambda: held_wal(scene.status()) < held_wal(later) / 2, "letting go of the WAL", 60.0)
            assert not scene.state().full
            assert running.end() == 0
    figures = {
        "caught_up_seconds_max": took,
        "wal_held_mib_max": held_wal(later) >> 20,
        "journal_kib_max": size >> 10,
        "rss_mib_max": memory.rss_max >> 20,
    }
    print(f"{len(facts)} changes, the other delivered {went_on} while full; {figures}")
    result.add(runs=1, ack_violations=safety.violations, **figures)
    for name in ("here", "there"):
        judge(facts, read_seen(scene.seen(name))).check(result)
    assert safety.violations == 0
    assert size <= QUOTA_BYTES + WAL_BYTES
    assert memory.rss_max >> 20 <= RSS_MIB_MAX


def check_said(at_full: dict, later: dict, said: str) -> None:
    """The status names what stands, why, and what grows for it."""
    assert "FULL: capture waits" in said, said
    assert "paused (by " in said, said
    assert "for long" in said, said
    assert later["journal"]["full"]
    assert held_wal(later) > held_wal(at_full) + (1 << 20), "the source's WAL is what grows"


def held_wal(status: dict) -> int:
    """How much WAL the slot holds, as the status says."""
    return status["source"]["slot"]["wal_held_bytes"]
