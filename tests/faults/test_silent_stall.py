"""A sink that takes everything and never answers, a function that blocks its event loop: both are told."""

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
from .scale import FULL, dice, repeats
from .shell import Scene, p99
from .workload import Workload

STALLED_SECONDS = {} if FULL else {"FAULTS_STALLED_SECONDS": "6"}
"""The short form is not patient; a loop that does not turn is told of soon anyway."""
TOLD_SECONDS_MAX = 60.0
BEFORE_SECONDS = repeats(3, 20)
LATE_SECONDS_MAX = 2.0
SILENT = ("mute", "blocked")


@pytest.mark.slow
@pytest.mark.timeout(repeats(150, 400))
@pytest.mark.scenario("62", "silent stall")
def test_a_standstill_is_told(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    scene = Scene(tmp_path, postgres, "silent", **STALLED_SECONDS)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with scene.run() as running:
            running.wait_for_streaming(connection)
            begun = time.time()
            with Workload(postgres.dsn, dice("silent").random(), pause_seconds=0.01) as workload:
                pause(BEFORE_SECONDS)
                told = wait_until_told(scene, begun)
                fine = scene.status_of("fine")
                workload.stop()
            ended = time.time()
            facts = ledger.facts()
            until(lambda: distinct(scene.seen("fine")) == len(facts), "the one that works")
            assert [scene.count(name) for name in SILENT] == [0, 0], "they did not stand still"
            scene.turn_on("release")
            for name in SILENT:
                until(lambda name=name: distinct(scene.seen(name)) == len(facts), f"{name} going on")
            until(lambda: all(scene.status_of(name)["state"] in ("running", "idle") for name in SILENT), "saying so")
            assert running.end() == 0
    late = p99(scene.lags("fine", begun, ended))
    print(f"told after {told}, p99 of the one that works {late * 1000:.1f} ms")
    result.add(runs=1, fine_p99_ms_max=late * 1000, **{f"{n}_told_seconds_max": s for n, (s, _) in told.items()})
    for name in ("fine", *SILENT):
        judge(facts, read_seen(scene.seen(name))).check(result)
    assert fine["state"] in ("running", "idle"), fine
    assert late <= LATE_SECONDS_MAX


def wait_until_told(scene: Scene, begun: float) -> dict[str, tuple[float, str]]:
    """Return when the status first said of each that it stands still, and in which words."""
    told: dict[str, tuple[float, str]] = {}

    def look() -> bool:
        subscriptions = {one["name"]: one for one in scene.status()["subscriptions"]}
        for name in SILENT:
            one = subscriptions[name]
            if name not in told and one["state"] not in ("running", "idle") and one["detail"]:
                told[name] = (round(time.time() - begun, 1), f"{one['state']}: {one['detail']}")
        return len(told) == len(SILENT)

    until(look, "the status telling of both", TOLD_SECONDS_MAX)
    return told
