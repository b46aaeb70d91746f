"""
Changes parked in mass, up to the bound: the subscription waits, nothing is dropped, nothing older comes last.

The versions of a row are 1, 2, 3 …, so that what the handler saw is judged by itself: with a million of them, a ledger
would be larger than what it is about.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest

from backend_watcher.contracts import HeldKey
from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.journal.view import SqliteJournalView

from .results import Part
from .running import JOURNAL, pause, until
from .sampler import Memory
from .scale import repeats
from .shell import Scene

HELD = repeats(2_000, 1_000_000)
HELD_OF_KEY = repeats(10, 100)
KEYS = HELD // HELD_OF_KEY
"""Poisoned ones; there are as many others."""
VERSIONS = HELD_OF_KEY + 3
RSS_MIB_MAX = repeats(300, 1024)
JOURNAL_BYTES_MAX = repeats(128 << 20, 1 << 30)
SECONDS_MAX = repeats(60, 900)
WRITE = """
INSERT INTO items SELECT n, %s, CASE WHEN n %% 2 = 1 THEN 'poison' ELSE '' END FROM generate_series(1, %s) n
ON CONFLICT (id) DO UPDATE SET version = excluded.version
"""


@pytest.mark.slow
@pytest.mark.timeout(repeats(180, 3000))
@pytest.mark.scenario("69", "parked in mass")
def test_at_the_bound_a_subscription_waits(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    scene = Scene(tmp_path, postgres, "poison", FAULTS_ATTEMPTS="1", FAULTS_PARKED_MAX=str(HELD))
    with (
        psycopg.connect(postgres.dsn, autocommit=True) as connection,
        scene.run() as running,
        Memory(lambda: running.process.pid) as memory,
    ):
        running.wait_for_streaming(connection)
        for version in range(1, VERSIONS + 1):
            connection.execute(WRITE, [version, 2 * KEYS])
        filling = until(lambda: state(scene) == "full", "being full", SECONDS_MAX)
        assert scene.status_of("note")["state"] == "full"
        held = sum(key.changes for key in scene.held("note"))
        assert HELD <= held <= HELD + 10, held
        took = scene.count("note")
        pause(1.0)
        assert scene.count("note") == took, "it is full and goes on"
        redriven, again = one_by_one(scene, held)
        discarded = discard_one(scene)
        begun = time.monotonic()
        scene.shell("parked", "redrive", "note", "--all")
        until(lambda: scene.count("note") == 2 * KEYS * VERSIONS - 1, "all that was parked", SECONDS_MAX)
        until(lambda: scene.status_of("note")["held_changes"] == 0, "letting go of what was held", SECONDS_MAX)
        emptying = time.monotonic() - begun
        until(lambda: state(scene) in ("running", "idle"), "not being full", 30.0)
        size = scene.journal_bytes()
        assert running.end() == 0
    older, missing = judge_versions(scene, discarded)
    figures = {
        "filling_seconds_max": filling,
        "all_failed_again_seconds_max": again,
        "one_redriven_seconds_max": redriven,
        "emptying_seconds_max": emptying,
        "rss_mib_max": memory.rss_max >> 20,
        "journal_mib_max": size >> 20,
    }
    print(f"{held} held changes of {KEYS} keys, {older} older over newer, {missing} missing; {figures}")
    result.add(runs=1, lost=missing, order_violations=older, held_max=held, **figures)
    assert (older, missing) == (0, 0)
    assert memory.rss_max >> 20 <= RSS_MIB_MAX
    assert size <= JOURNAL_BYTES_MAX


def state(scene: Scene) -> str:
    """Return what the watcher notes of itself; `watcher status` would look through all that is held."""
    with SqliteJournalView(scene.folder / JOURNAL) as view:
        return json.loads(view.notes()["subscription:note"])["state"]


def one_by_one(scene: Scene, held: int) -> tuple[float, float]:
    """One is tried in vain, then all; return how long one took that is mended, and all that are not."""
    before = scene.held("note")
    first = before[0]
    scene.shell("parked", "redrive", "note", str(first.number))
    until(lambda: tried_again(scene.held("note")[:1], first.last_at), "failing again")
    begun = time.monotonic()
    scene.shell("parked", "redrive", "note", "--all")
    until(lambda: scene.status_of("note")["retrying_keys"] == 0, "all of them failing again", SECONDS_MAX)
    again = time.monotonic() - begun
    after = scene.held("note")
    assert tried_again(after, max(key.last_at for key in before)), "some were not tried"
    assert sum(key.changes for key in after) == held, "poisoned again, and something is gone"
    scene.turn_on("mended")
    begun = time.monotonic()
    scene.shell("parked", "redrive", "note", str(first.number))
    until(lambda: scene.held("note")[0].number != first.number, "the one that is mended")
    return time.monotonic() - begun, again


def tried_again(keys: Sequence[HeldKey], before: float) -> bool:
    """Say whether keys were tried, and parked, since a moment."""
    return all(key.last_at > before and key.parked for key in keys)


def discard_one(scene: Scene) -> int:
    """Give up the change that one key failed on, with a reason; return the key."""
    key = scene.held("note")[-1]
    scene.shell("parked", "discard", "note", str(key.number), "--reason", "nobody needs it")
    entry = json.loads(scene.shell("audit", "--json"))["audit"][-1]
    assert entry["action"] == "discard"
    assert "nobody needs it" in entry["detail"]
    return json.loads(key.key)["id"]


def judge_versions(scene: Scene, discarded: int) -> tuple[int, int]:
    """Return how many came after a newer one of their row, and how many never came but the one that was given up."""
    newest: Counter[int] = Counter()
    count: Counter[int] = Counter()
    older = 0
    with scene.seen("note").open() as lines:
        for one in lines:
            _, _, _, key, version, _ = one.split(" ", 5)
            older += int(version) <= newest[int(key)]
            newest[int(key)] = max(newest[int(key)], int(version))
            count[int(key)] += 1
    owed = {key: VERSIONS - (key == discarded) for key in range(1, 2 * KEYS + 1)}
    ended = sum(newest[key] != VERSIONS for key in owed)
    return older, ended + sum(abs(count[key] - number) for key, number in owed.items())
