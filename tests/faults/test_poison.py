"""A change that its handler cannot take: its key waits by itself, in order, is parked, mended and delivered."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.events.position import Position
from backend_watcher.journal.view import SqliteJournalView

from .judge import Seen, distinct, judge, read_seen
from .ledger import Ledger
from .results import Part
from .running import JOURNAL, Running, until
from .sampler import AckSafety, Memory
from .scale import dice, repeats
from .shell import RSS_MIB_MAX, Scene, p99
from .workload import DELETE, PUT, Client, Workload

ONE_OF = repeats(1_000, 10_000)
CHANGES = repeats(5_000, 60_000)
ATTEMPTS = 4
DELAY_SECONDS_MAX = 1.0
SLACK = 2.0
"""Others are on this machine; the true delay is in the figures."""


def one_of_many_is_poison(connection: psycopg.Connection, client: Client) -> None:
    """Rows and deletes; some rows are poison, and what follows on their keys is not."""
    with connection.transaction():
        for _ in range(3):
            row = client.row(client.dice.choice(client.keys))
            if client.dice.random() < 1 / ONE_OF:
                connection.execute(PUT, row | {"note": "poison"})
            else:
                connection.execute(DELETE if client.dice.random() < 0.1 else PUT, row)


@pytest.mark.slow
@pytest.mark.quiet
@pytest.mark.timeout(repeats(120, 900))
@pytest.mark.scenario("14", "poison in the handler")
def test_a_poisoned_key_holds_up_itself_only(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    scene = Scene(tmp_path, postgres, "poison")
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with scene.run() as first:
            first.wait_for_streaming(connection)
            workload = Workload(postgres.dsn, dice("poison").random(), one_of_many_is_poison).start()
            # One for certain: the dice may have none.
            connection.execute("INSERT INTO items VALUES (1000, 1, 'poison')")
            connection.execute("UPDATE items SET version = 2, note = 'waits behind it' WHERE id = 1000")
            cursor = deliver_until_killed(scene, first, postgres.dsn, CHANGES // 2, result)
            killed = time.time()
        with scene.run() as running, Memory(lambda: running.process.pid) as memory:
            until(lambda: scene.count("note") > CHANGES, "the second half")
            workload.stop()
            until(lambda: all(key.parked for key in scene.held("note")), "parking")
            facts = ledger.facts()
            # What is on its way may still join what is parked.
            until(lambda: distinct(scene.seen("note")) + owed(scene) == len(facts), "all but what is parked", 60)
            kept, parked = scene.held("note"), owed(scene)
            assert cursor_of(scene) > cursor, "the cursor stands still"
            assert {key.attempts for key in kept} == {ATTEMPTS}
            scene.turn_on("mended")
            begun = time.monotonic()
            scene.shell("parked", "redrive", "note", "--all")
            until(lambda: distinct(scene.seen("note")) == len(facts), "what was parked")
            took = time.monotonic() - begun
            until(lambda: not scene.held("note"), "letting go of what was held")
            assert running.end() == 0
        seen = read_seen(scene.seen("note"))
        judge(facts, seen).check(result)
        assert differences(connection, seen) == 0
    poisoned = {json.loads(key.key)["id"] for key in kept}
    late = p99(scene.lags("note", 0.0, killed, poisoned))
    figures = {"others_p99_ms_max": late * 1000, "rss_mib_max": memory.rss_max >> 20, "recovery_seconds_max": took}
    result.add(runs=1, keys_parked=len(kept), changes_parked=parked, **figures)
    print(f"{len(kept)} keys with {parked} changes parked; {figures}")
    assert late <= DELAY_SECONDS_MAX * SLACK
    assert memory.rss_max >> 20 <= RSS_MIB_MAX


def deliver_until_killed(scene: Scene, running: Running, dsn: str, changes: int, result: Part) -> Position:
    """Kill the watcher when it has delivered so much and holds something; return its cursor then."""
    with AckSafety(dsn, running.journal) as safety:
        until(lambda: scene.held("note"), "holding")
        until(lambda: scene.count("note") > changes, "the first half")
        running.end(signal.SIGKILL)
    assert scene.held("note"), "nothing was held when it was killed"
    result.add(slot_advanced=safety.advanced, ack_violations=safety.violations)
    assert safety.violations == 0
    assert safety.advanced > 1, "the slot stands still"
    return cursor_of(scene)


def owed(scene: Scene) -> int:
    """How many changes are held."""
    return sum(key.changes for key in scene.held("note"))


def cursor_of(scene: Scene) -> Position:
    """Return the subscription's cursor."""
    with SqliteJournalView(scene.folder / JOURNAL) as view:
        return view.cursors()["note"]


def differences(connection: psycopg.Connection, seen: Sequence[Seen]) -> int:
    """How many rows ended otherwise at the handler than at the source."""
    ended = {one.fact.key: one.fact.version for one in seen}
    there = dict(connection.execute("SELECT id, version FROM items").fetchall())
    return sum(ended.get(key, -1) != there.get(key, -1) for key in ended.keys() | there.keys())
