"""A repair outlives the process that does it, wherever that is killed; where none runs it waits for one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend_watcher.errors import CannotVerify
from backend_watcher.reconcile.report import Answer
from backend_watcher.service.backfilling import backfills
from backend_watcher.service.repairing import repair, what_to_do
from faults.running import Running, until

from .conftest import PROGRAM, Stage, staged
from .test_repaired import await_held
from .test_verify import found

PLACES = (
    "backfill.before_mark",
    "backfill.before_placed",
    "backfill.placed_piece",
    "backfill.placed",
    "backfill.before_note",
    "backfill.after_note",
)
DAMAGED = {"i:1": "different", "i:2": "missing", "i:3": "missing", "i:500": "extra", "i:501": "extra"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("killed")) as stage:
        yield stage


def runs(stage: Stage, folder: Path, probe: str = "") -> Running:
    running = Running(folder, stage.environ, probe, program=PROGRAM)
    running.wait_for_streaming(stage.connection)
    until(lambda: (folder / ".watcher" / "faults.journal.control").exists() or running.ended, "its door")
    return running


@pytest.mark.slow
async def test_it_is_done_by_the_next_one(place: Stage) -> None:
    config, watcher = place.read()
    killed = 0
    with runs(place, place.folder) as first:
        place.run("INSERT INTO items SELECT n, 1, 'n', 's', true FROM generate_series(1, 100) n")
        place.until_equal(lambda: place.entries("i"), 100)
        assert first.end() == 0
    for where in PLACES:
        place.cache.set("i:1", "{}")
        place.cache.delete("i:2", "i:3")
        place.cache.mset({"i:500": "{}", "i:501": "{}"})
        with runs(place, place.folder) as looks:
            before = await place.verify("plain")
            assert found(before) == DAMAGED, where
            assert looks.end() == 0
        plans = await what_to_do(config, watcher, before)
        with runs(place, place.folder, f"{where}=kill") as dies:
            done = await repair(config, watcher, before, plans, reason=where, stall_seconds_max=0.5)
            assert dies.wait() == -signal.SIGKILL, where
            killed += 1
        assert done.after is not None
        assert isinstance(done.after.error, CannotVerify)
        assert done.exit_code == 75
        # The rows go on, and nobody hears them yet: one comes back, one goes, one is another one.
        place.run(
            "INSERT INTO items VALUES (501, 2, 'back', 's', true)",
            "DELETE FROM items WHERE id = 3",
            "UPDATE items SET version = version + 1 WHERE id = 1",
        )
        with runs(place, place.folder) as next_one:
            until(lambda: not any(job.is_open for job in backfills(config)), "the repair")
            after = await place.verify("plain")
            assert (after.answer, found(after)) == (Answer.EQUAL, {}), (where, after.as_plain())
            place.run("DELETE FROM items WHERE id = 501", "INSERT INTO items VALUES (3, 1, 'n', 's', true)")
            until(lambda: place.cache.exists("i:3", "i:501") == 1 and place.cache.exists("i:501") == 0, "as before")
            assert next_one.end() == 0
    assert killed == len(PLACES)
    assert not await_held(place)


async def test_where_nobody_runs_it_waits(place: Stage) -> None:
    config, watcher = place.read()
    with runs(place, place.folder) as running:
        place.run("INSERT INTO items VALUES (900, 1, 'n', 's', true)")
        until(lambda: place.cache.exists("i:900"), "the row")
        place.cache.delete("i:900")
        before = await place.verify("plain")
        assert running.end() == 0
    plans = await what_to_do(config, watcher, before)
    done = await repair(config, watcher, before, plans, stall_seconds_max=0.5)
    assert done.after is not None
    assert "is waiting: nothing has moved for 0.5 s" in str(done.after.error)
    assert done.exit_code == 75
    with runs(place, place.folder):
        again = await repair(config, watcher, before, plans, stall_seconds_max=20.0)
        assert again.exit_code == 0, again.as_plain()
    assert place.cache.exists("i:900")
