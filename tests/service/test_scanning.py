"""Scans of whole subscriptions in a world that goes on: when they come, what is kept, what failing and restarts do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator

import pytest

from backend_watcher.contracts import Identity
from backend_watcher.delivery.route import Route, Rule
from backend_watcher.delivery.subscription import Options, Subscription
from backend_watcher.errors import ConfigError, SourceUnavailable, WatcherError
from backend_watcher.journal import MemoryJournal
from backend_watcher.reconcile import rounds
from backend_watcher.reconcile.rounds import Scans
from backend_watcher.reconcile.source import SourceTable
from backend_watcher.service import scanning
from backend_watcher.service.config import SourceConfig
from backend_watcher.service.readable import Readable
from backend_watcher.service.scanning import RETRY_SECONDS, TRIES_MAX, Scanner
from backend_watcher.sinks.memory import Memory
from backend_watcher.testing.fakes import RecordingObserver, Verified
from reconcile.world import World, WorldSink, WorldSource, owned_time

CONFIG = SourceConfig("", "s", "p", 10.0)
PERIOD = 1000.0


class Stage:
    """A world, and what scans it. `failing` says what asking for a table raises."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.world = World(random.Random(3), late=True)
        for _ in range(30):
            self.world.write()
        self.world.settle()
        self.world.busy = False
        self.time = 5000.0
        self.journal = MemoryJournal()
        self.observer = RecordingObserver()
        self.published = True
        self.failing: dict[str, WatcherError] = {}
        self.asked: list[str] = []
        patch.setattr(scanning, "reading_source", lambda *_: _Tables(self))

    def scanner(self, **tables: list[str]) -> Scanner:
        """Return what scans subscriptions, with their tables; each is the one table of the world."""
        options = Options(verify_every_seconds=PERIOD)
        world = self.world

        class OfWorld(Readable):
            def reader(self) -> WorldSink:
                return WorldSink(world)

        readables = [
            OfWorld(Subscription(name, Route({one: Rule(one) for one in some}), Memory(), (), options), Memory(), None)
            for name, some in tables.items()
        ]
        return Scanner(readables, CONFIG, world, self.journal, self.observer, wall=lambda: self.time)

    def run(self, scanner: Scanner, until: Callable[[], bool]) -> None:
        """Scan until something is so."""

        async def run() -> None:
            await self.journal.open()
            if self.published:
                await self.journal.save_identity(Identity("7", 1, "s", "p"), 0)
            scans = asyncio.create_task(scanner.run())
            while not until():
                assert not scans.done(), scans.result()
                await self.world.pass_time()
            scans.cancel()

        with owned_time(self.world):
            asyncio.run(run())

    def told(self) -> list[Verified]:
        return [told for told in self.observer.told if isinstance(told, Verified)]

    def note(self, name: str = "mails") -> Scans:
        return rounds.load(asyncio.run(self.journal.get_note(f"scan:{name}")))


class _Tables(WorldSource):
    def __init__(self, stage: Stage) -> None:
        super().__init__(stage.world)
        self._stage = stage

    async def table(self, name: str) -> SourceTable:
        self._stage.asked.append(name)
        if name in self._stage.failing:
            raise self._stage.failing[name]
        return await super().table(name)

    async def close(self) -> None:
        pass


@pytest.fixture
def stage() -> Iterator[Stage]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scanning, "PAUSE_SECONDS", 0)
        yield Stage(patch)


def test_a_scan_comes_at_once_and_then_once_a_period(stage: Stage) -> None:
    scanner = stage.scanner(mails=["public.mails"])
    stage.run(scanner, lambda: len(stage.told()) == 1)
    count = len(stage.world.rows)
    assert stage.told() == [Verified("mails", "equal", f"{count} rows of 1 tables")]
    (one,) = stage.note().last.tables.values()
    assert (one.verdict, one.rows, one.entries, one.extras_unknown) == ("equal", count, count, "")
    asked = len(stage.asked)
    stage.time += PERIOD - 1
    steps = iter(range(300))
    stage.run(stage.scanner(mails=["public.mails"]), lambda: next(steps, None) is None)
    assert len(stage.asked) == asked
    stage.time += 2
    stage.run(stage.scanner(mails=["public.mails"]), lambda: len(stage.told()) == 2)


def test_what_was_done_by_hand_is_found(stage: Stage) -> None:
    one, other = sorted(stage.world.cache)[:2]
    stage.world.cache[one] = b"{}"
    del stage.world.cache[other]
    stage.world.cache[b"m:nobody"] = b"{}"
    stage.run(stage.scanner(mails=["public.mails"]), lambda: bool(stage.told()))
    last = stage.note().last
    assert (last.verdict, last.words.partition(": ")[2]) == ("different", "1 missing, 1 extra, 1 different")


def test_tables_that_share_their_entries_have_no_extra_ones(stage: Stage) -> None:
    stage.world.cache[b"m:nobody"] = b"{}"
    stage.run(stage.scanner(mails=["public.a", "public.b"]), lambda: bool(stage.told()))
    assert stage.told()[0].verdict == "equal"
    assert {one.extras_unknown for one in stage.note().last.tables.values()} == {
        "several tables have their entries under the same names"
    }


def test_a_side_that_does_not_answer_is_asked_again_and_others_go_on_meanwhile(stage: Stage) -> None:
    stage.failing["public.a"] = SourceUnavailable("gone")
    scanner = stage.scanner(first=["public.a", "public.z"], second=["public.b"])
    stage.run(scanner, lambda: [told.subscription for told in stage.told()] == ["second"])
    assert "SourceUnavailable: gone" in stage.note("first").now.error
    del stage.failing["public.a"]
    stage.time += RETRY_SECONDS + 1
    stage.run(stage.scanner(first=["public.a", "public.z"]), lambda: len(stage.told()) == 2)
    assert (stage.told()[1].verdict, stage.note("first").last.error) == ("equal", "")


@pytest.mark.parametrize("error", [SourceUnavailable("gone"), ConfigError(["has no key"])])
def test_a_table_that_cannot_be_scanned_is_said_and_left(stage: Stage, error: WatcherError) -> None:
    def go_on() -> bool:
        stage.time += RETRY_SECONDS + 1
        return bool(stage.told())

    stage.failing["public.a"] = error
    stage.run(stage.scanner(mails=["public.a", "public.b"]), go_on)
    last = stage.note().last
    assert {name: one.verdict for name, one in last.tables.items()} == {"public.a": "partial", "public.b": "equal"}
    assert str(error) in last.tables["public.a"].notes[0]
    assert last.verdict == "partial"
    tries = 1 if isinstance(error, ConfigError) else TRIES_MAX
    # Each time twice: for how large all is, and for itself.
    assert stage.asked.count("public.a") == 2 * tries


def test_a_restart_goes_on_with_the_next_table(stage: Stage) -> None:
    names = ["public.a", "public.b", "public.c"]
    stage.failing["public.b"] = SourceUnavailable("gone")
    scanner = stage.scanner(mails=names)
    stage.run(scanner, lambda: bool(scanner._again_at))
    stage.failing.clear()
    begun = stage.note().now.begun_at
    stage.time += RETRY_SECONDS + 1
    stage.run(stage.scanner(mails=names), lambda: bool(stage.told()))
    last = stage.note().last
    assert last.begun_at == begun
    assert last.tables["public.a"].ended_at == begun < last.tables["public.b"].ended_at


def test_nothing_is_scanned_before_the_stream_was_made(stage: Stage) -> None:
    stage.published = False
    steps = iter(range(300))
    stage.run(stage.scanner(mails=["public.mails"]), lambda: next(steps, None) is None)
    assert stage.asked == []
