"""A sink did what it was asked, and the answer was lost: done again, and the same in the end."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey

from .hook_receiver import TAKEN, Answer, Receiver, Request
from .judge import cache_differences, distinct, judge, read_lines, read_seen, without_repeats
from .ledger import Ledger
from .results import Part
from .running import until
from .scale import dice, repeats
from .shell import SECRET, Scene, lines_in
from .workload import Workload

LOST = repeats(40, 1_000)
"""At each sink."""
BATCH = 10


class Forgetful:
    """Takes a change, and resets the connection instead of saying so: every second new one, so many times."""

    def __init__(self) -> None:
        self.lost = 0
        self._news = 0

    def __call__(self, request: Request) -> Answer:
        self._news += request.number == 1
        if request.number > 1 or self._news % 2 or self.lost == LOST:
            return TAKEN
        self.lost += 1
        return Answer(resets=True)


@pytest.mark.slow
@pytest.mark.timeout(repeats(180, 1200))
@pytest.mark.scenario("45", "sinks that do it and lose the answer")
def test_done_and_not_answered(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part
) -> None:
    forgetful = Forgetful()
    with psycopg.connect(postgres.dsn, autocommit=True) as connection, Receiver(forgetful) as receiver:
        ledger = Ledger(connection)
        told = {"FAULTS_URL": receiver.url, "FAULTS_SECRET": SECRET, "FAULTS_LOST": str(LOST)}
        scene = Scene(tmp_path, postgres, "forgetful", valkey, **told)

        def lost() -> dict[str, int]:
            found = {name: lines_in(tmp_path / f"lost_{name}") for name in ("file", "cache", "handler")}
            return {**found, "webhook": forgetful.lost}

        with scene.run() as running:
            running.wait_for_streaming(connection)
            # Slow enough in the long run for the webhook, which is called once for each change.
            pause = repeats(2, 20) / 1000
            with Workload(postgres.dsn, dice("lost answers").random(), pause_seconds=pause) as workload:
                until(lambda: min(lost().values()) == LOST, "losing answers", repeats(60, 900))
                workload.stop()
            facts = ledger.facts()
            until(lambda: distinct(scene.seen("handler")) == len(facts), "the handler taking all")
            until(lambda: receiver.distinct() == len(facts), "the webhook taking all", repeats(120, 600))
            until(lambda: len({one.position for one in read_lines(tmp_path / "lines")}) == len(facts), "the file")
            until(lambda: cache_differences(connection, valkey.url, ["items"]) == 0, "the cache being equal", 60.0)
            assert running.end() == 0
        different = cache_differences(connection, valkey.url, ["items"])
    raw = {
        "handler": read_seen(scene.seen("handler")),
        "webhook": receiver.taken,
        "file": read_lines(tmp_path / "lines"),
    }
    twice = {name: len(seen) - len(facts) for name, seen in raw.items()}
    print(f"{len(facts)} changes, answers lost {lost()}, delivered twice {twice}, different in the cache {different}")
    result.add(runs=1, answers_lost=sum(lost().values()), cache_different=different)
    result.add(**{f"twice_at_{name}": count for name, count in twice.items()})
    # A batch came again whole, so of the file only what came first is in order.
    raw["file"] = without_repeats(raw["file"])
    for seen in raw.values():
        judge(facts, seen).check(result)
    assert different == 0
    # One change for each answer that was lost, and never more: whoever keeps the ids sees none twice.
    assert twice["handler"] == LOST
    assert twice["webhook"] == LOST
    assert max(Counter(one.position for one in receiver.taken).values()) == 2
    assert twice["file"] <= LOST * BATCH
