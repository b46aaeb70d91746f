"""What differs in a digest is read, gathered, and looked at again together; `test_verify_model.py` says what of it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from backend_watcher.events.change import Change
from backend_watcher.reconcile import bisect, by_digests, ranges, report
from backend_watcher.reconcile.by_digests import ByDigests, Steps, can_digest
from backend_watcher.reconcile.digest import NameSet
from backend_watcher.reconcile.plan import Suspect
from backend_watcher.reconcile.report import Range, TableResult

from .world import World, WorldReplica, WorldSink, WorldSource


class Stage:
    """A table of twenty rows, of which a replica has others by hand; it keeps which entries were looked at together."""

    def __init__(self) -> None:
        self.world = World(random.Random(1), busy=False)
        self.world.rows = {key: (f"mail{key}", 1) for key in range(20)}
        self.world.copy = dict(self.world.rows)
        self.source, self.sink = WorldSource(self.world), WorldReplica(self.world)
        self.looks: list[list[bytes]] = []
        self.result = TableResult("copy", "public.mails")

    async def compare(self, changes: Sequence[Change], one: Range, seen: NameSet) -> list[Suspect]:
        wrong = []
        for change in changes:
            ((name, value),) = await self.sink.entries([change])  # type: ignore[misc]
            seen.add([name])
            (held,) = await self.sink.held(change.table, [name])
            if held != value:
                wrong.append(Suspect(name))
            else:
                one.count(name, value, held)
        return wrong

    async def look_again(self, suspects: Sequence[Suspect], one: Range) -> None:
        self.looks.append([suspect.name for suspect in suspects])

    async def run(self) -> None:
        table = await self.source.table("public.mails")
        steps = Steps(self.compare, self.look_again)
        await ByDigests(self.source, self.sink, table, self.result, steps, 5_000, None).run()  # type: ignore[arg-type]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Two parts of two rows in each range."""
    for module, name, value in ((bisect, "PART_ROWS", 2), (ranges, "PART_ROWS", 2), (bisect, "RANGE_ROWS_FIRST", 4)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(bisect, "QUERY_SECONDS", 0.0)
    made = Stage()
    made.world.copy[7] = ("by hand", 1)
    del made.world.copy[10]
    made.world.copy |= {-5: ("by hand", 1), 99: ("by hand", 1)}
    return made


def names(*keys: int) -> list[bytes]:
    return [b'["%d"]' % key for key in keys]


async def test_what_differs_is_looked_at_together(stage: Stage) -> None:
    await stage.run()
    (looked,) = stage.looks
    assert sorted(looked) == sorted(names(-5, 7, 10, 99))
    assert (stage.result.by_digests, stage.result.rows) == (True, 20)
    # Four parts of two rows at most, of which the last is behind all of them.
    assert stage.result.read_again <= 8
    assert stage.result.source.count == 20 - 2


async def test_not_too_much_of_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_digests, "ENTRIES_MAX", 2)
    await stage.run()
    assert [len(one) for one in stage.looks] == [2, 2]


async def test_and_not_too_late(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_digests, "SETTLE_SECONDS", -1.0)
    await stage.run()
    assert stage.looks == [names(-5), names(7), names(10), names(99)]


async def test_where_so_much_differs_the_rest_is_left(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_digests, "SETTLE_SECONDS", -1.0)
    monkeypatch.setattr(report, "DIFFERENCES_MAX", 0)
    await stage.run()
    assert len(stage.looks) <= 1
    assert stage.result.rows <= 4


async def test_only_where_both_go_one_way(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    table = await stage.source.table("public.mails")
    assert await can_digest(stage.source, stage.sink, table)  # type: ignore[arg-type]
    assert not await can_digest(stage.source, WorldSink(stage.world), table)  # type: ignore[arg-type]
    for way in ("", "another hash"):

        async def other(*_: object, way: str = way) -> str:
            return way

        monkeypatch.setattr(stage.sink, "digest_way", other)
        assert not await can_digest(stage.source, stage.sink, table)  # type: ignore[arg-type]
