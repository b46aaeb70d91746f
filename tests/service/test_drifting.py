"""What seems wrong is looked at again in a world that goes on: what moves is no alarm, and what stays is one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend_watcher.delivery.route import Route, Rule
from backend_watcher.delivery.subscription import Subscription
from backend_watcher.errors import CannotVerify, SourceRefused
from backend_watcher.events.position import Position
from backend_watcher.journal import MemoryJournal
from backend_watcher.reconcile.plan import Touched
from backend_watcher.reconcile.sampling import Sample
from backend_watcher.reconcile.source import SourceTable
from backend_watcher.service import drifting
from backend_watcher.service.config import SourceConfig
from backend_watcher.service.drifting import DriftWatch
from backend_watcher.service.proved import proved
from backend_watcher.service.readable import Readable
from backend_watcher.sinks.memory import Memory
from backend_watcher.testing.fakes import Drift, RecordingObserver
from reconcile.world import MAILS, World, WorldSink, WorldSource, name_of, owned_time

CONFIG = SourceConfig("", "s", "p", 10.0)


class Closable(WorldSource):
    refuses = False

    async def table(self, name: str) -> SourceTable:
        if self.refuses:
            raise SourceRefused(f"table {name} is not there")
        return await super().table(name)

    async def close(self) -> None:
        pass


class Stage:
    """A world, and the alarms of its one subscription."""

    def __init__(self, world: World, patch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.journal = MemoryJournal()
        self.observer = RecordingObserver()
        self.source = Closable(world)
        patch.setattr(drifting, "reading_source", lambda *_: self.source)
        self.watch = self.anew()

    def anew(self) -> DriftWatch:
        world = self.world

        class OfWorld(Readable):
            def reader(self) -> WorldSink:
                return WorldSink(world)

        mails = Subscription("mails", Route({"public.mails": Rule("public.mails")}), Memory())
        self.watch = DriftWatch(
            OfWorld(mails, Memory(), None), CONFIG, world, self.journal, self.observer, wall=lambda: 77.0
        )
        return self.watch

    def samples(self) -> list[Sample]:
        """Return the newest change of each entry, as if it had been read back and not been found."""
        found: dict[bytes, Sample] = {}
        for commit in self.world.commits[: self.world.delivered]:
            for made in commit.changes:
                row = made.row
                name, key = name_of(row["mail"]), str(row["id"])
                found[name] = Sample(name, b"", MAILS, made.position, 0.0, 0.0, key.encode(), {"id": key})
        return list(found.values())

    def look(self, *samples: Sample) -> list[Drift]:
        """Look once; return what was told."""
        before = len(self.observer.told)
        with owned_time(self.world):
            asyncio.run(self._look(samples))
        return [told for told in self.observer.told[before:] if isinstance(told, Drift)]

    async def _look(self, samples: tuple[Sample, ...]) -> None:
        await self.journal.open()
        await self.watch.look(samples)

    def note(self) -> str | None:
        return asyncio.run(self.journal.get_note("drift:mails"))


def world_of(seed: int, *, busy: bool) -> World:
    world = World(random.Random(seed), late=True)
    for _ in range(30):
        world.write()
    world.settle()
    world.busy = busy
    return world


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def quiet(patch: pytest.MonkeyPatch) -> tuple[Stage, bytes, list[Sample]]:
    """A world where nothing goes on, one of its entries, and all samples."""
    stage = Stage(world_of(3, busy=False), patch)
    return stage, min(stage.world.cache), stage.samples()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 32))
def test_what_moves_is_no_alarm(seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stage = Stage(world_of(seed, busy=True), patch)
        # Some were delivered long ago: rows have given their names to others since.
        old = stage.samples()
        for _ in range(3):
            assert stage.look(*stage.samples()) == []
            for _ in range(10):
                stage.world.step()
            assert stage.look(*old) == []


def test_what_stays_is_told_once_and_over_when_it_is_equal(patch: pytest.MonkeyPatch) -> None:
    stage, name, samples = quiet(patch)
    right = stage.world.cache[name]
    stage.world.cache[name] = b"{}"
    assert stage.look(*samples) == [Drift("mails", "public.mails", "different", True)]
    begun = stage.watch.alarms.kept[0].doubt.since_lsn
    assert stage.look() == []
    assert stage.watch.alarms.kept[0].doubt.since_lsn > begun
    assert stage.look(*samples) == []
    # Another process takes it over.
    (alarm,) = stage.watch.alarms.kept
    asyncio.run(stage.anew().load())
    assert stage.watch.alarms.kept == [alarm]
    assert (alarm.doubt.name, alarm.since) == (name, 77.0)
    assert proved({"drift:mails": stage.note() or ""}, "mails")["drift"][0]["entry"] == name.decode()
    stage.world.cache[name] = right
    assert stage.look() == [Drift("mails", "public.mails", "different", False)]
    assert (stage.watch.alarms.kept, stage.note()) == ([], None)


def test_what_is_gone_and_what_has_no_row(patch: pytest.MonkeyPatch) -> None:
    stage, name, samples = quiet(patch)
    del stage.world.cache[name]
    assert [told.kind for told in stage.look(*samples)] == ["missing"]
    gone = next(one for one in samples if one.name not in stage.world.cache and one.name != name)
    stage.world.cache[gone.name] = b"{}"
    assert [told.kind for told in stage.look(gone)] == ["extra"]
    del stage.world.cache[gone.name]
    assert [told.persists for told in stage.look()] == [False]


def test_a_name_that_another_row_has_by_now_is_no_alarm(patch: pytest.MonkeyPatch) -> None:
    stage, _, samples = quiet(patch)
    stage.world.busy = True
    for seed in range(40):
        stage.world.write()
        stage.world.settle()
        stage.world.dice.seed(seed)
    stage.world.busy = False
    keys = {name_of(mail): str(key) for key, (mail, _) in stage.world.rows.items()}
    moved = [one for one in samples if keys.get(one.name, one.row["id"]) != one.row["id"]]
    assert moved
    assert stage.look(*moved) == []
    patch.setattr(drifting.DriftWatch, "_is_near", lambda *_: True)
    # What would be said if nobody asked the journal.
    patch.setattr(stage.watch._follower, "touched", lambda *_: Touched())
    assert {told.kind for told in stage.look(*moved)} == {"extra"}


def test_an_entry_without_a_row_is_no_alarm_where_nobody_knows_who_had_it_since(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(drifting, "JOURNAL_BYTES_MAX", 0)
    stage, name, samples = quiet(patch)
    gone = next(one for one in samples if one.name not in stage.world.cache)
    stage.world.cache[gone.name] = b"{}"
    stage.world.cache[name] = b"{}"
    assert [told.kind for told in stage.look(*samples)] == ["different"]


def test_an_alarm_of_a_table_that_is_gone_ends(patch: pytest.MonkeyPatch) -> None:
    stage, name, samples = quiet(patch)
    stage.world.cache[name] = b"{}"
    stage.look(*samples)
    stage.source.refuses = True
    assert stage.look() == []
    assert (stage.watch.alarms.kept, stage.note()) == ([], None)


def test_a_row_that_cannot_be_found_is_not_looked_for(patch: pytest.MonkeyPatch) -> None:
    stage, name, _ = quiet(patch)
    stage.world.cache[name] = b"{}"
    assert stage.look(Sample(name, b"", MAILS, Position(5, 0), 0.0, 0.0, b"1", {"other": "1"})) == []


def test_without_anything_to_look_at_nobody_is_asked(patch: pytest.MonkeyPatch) -> None:
    stage, _, _ = quiet(patch)
    patch.setattr(drifting, "reading_source", None)
    assert stage.look() == []


def test_where_one_side_does_not_move_it_is_said_and_nothing_is_known(patch: pytest.MonkeyPatch) -> None:
    stage, name, samples = quiet(patch)
    stage.world.cache[name] = b"{}"

    async def stalls(*_: object) -> None:
        raise CannotVerify("nothing has moved for 10 s")

    patch.setattr(stage.watch._follower, "delivered", stalls)
    with pytest.raises(CannotVerify):
        stage.look(*samples)
    assert stage.watch.alarms.kept == []
