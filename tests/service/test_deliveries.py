"""Each subscription in a thread of its own: begun at its cursor, asked from outside, drained together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any, Self

import pytest

from backend_watcher.delivery.route import Route, Rule
from backend_watcher.delivery.run import SubscriptionLoop
from backend_watcher.delivery.subscription import Options, Start, Subscription
from backend_watcher.errors import ConfigError
from backend_watcher.events.position import START
from backend_watcher.journal import MemoryJournal
from backend_watcher.service import deliveries
from backend_watcher.service.deliveries import Deliveries
from backend_watcher.sinks.memory import Memory
from backend_watcher.testing.chunks import ChunkMaker
from backend_watcher.testing.fakes import OwnedClock, RecordingObserver

PRODUCTS = "public.products"
OLDEST = Options(start=Start.OLDEST)


class Threaded(Memory):
    """Notes in which thread it works."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.threads: set[str] = set()
        self.fails = fails

    async def write(self, batch: Any) -> Any:
        self.threads.add(threading.current_thread().name)
        if self.fails:
            raise ConfigError(["no such stream"])
        return await super().write(batch)


def subscription(name: str, sink: Memory, options: Options = OLDEST) -> Subscription:
    return Subscription(name, Route({PRODUCTS: Rule(PRODUCTS)}), sink, (), options)


@pytest.fixture
async def journal() -> AsyncIterator[MemoryJournal]:
    journal = MemoryJournal()
    await journal.open()
    await journal.append(ChunkMaker()(3))
    yield journal
    await journal.close()


class Bench:
    def __init__(self, journal: MemoryJournal, *subscriptions: Subscription) -> None:
        self.observer = RecordingObserver()
        self.subscriptions = subscriptions
        self.deliveries = Deliveries(journal, OwnedClock(), self.observer)

    async def __aenter__(self) -> Self:
        await self.deliveries.run_these(self.subscriptions)
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.deliveries.drain()

    async def settled(self, changes: int) -> None:
        await self.observer.wait_for(lambda: self.observer.delivered_changes >= changes)


async def test_each_delivers_in_its_own_thread(journal: MemoryJournal) -> None:
    one, two = Threaded(), Threaded()
    async with Bench(journal, subscription("one", one), subscription("two", two)) as bench:
        await bench.settled(6)
        assert bench.deliveries.names == ["one", "two"]
    assert (one.threads, two.threads) == ({"watcher-one"}, {"watcher-two"})
    assert not one.is_open
    assert {name: position > START for name, position in (await journal.cursors()).items()} == {
        "one": True,
        "two": True,
    }


async def test_those_with_one_sink_share_a_thread(journal: MemoryJournal) -> None:
    sink = Threaded()
    async with Bench(journal, subscription("one", sink), subscription("two", sink)) as bench:
        await bench.settled(6)
    assert len(sink.threads) == 1


async def test_a_new_one_begins_with_what_comes_or_with_what_is_there(journal: MemoryJournal) -> None:
    now, oldest = Threaded(), Threaded()
    async with Bench(journal, subscription("now", now, Options()), subscription("oldest", oldest)) as bench:
        await bench.settled(3)
    assert (now.count, oldest.count) == (0, 3)


async def test_one_that_stops_does_not_stop_the_others(journal: MemoryJournal) -> None:
    wrong, right = Threaded(fails=True), Threaded()
    async with Bench(journal, subscription("wrong", wrong), subscription("right", right)) as bench:
        await bench.settled(3)
        await bench.observer.wait_for(lambda: bool(bench.observer.failures))
    assert (wrong.count, right.count) == (0, 3)
    assert (await journal.cursors())["wrong"] == START


async def test_a_loop_is_asked_in_its_own_thread(journal: MemoryJournal) -> None:
    async def where(loop: SubscriptionLoop) -> tuple[str, str]:
        return loop.name, threading.current_thread().name

    async with Bench(journal, subscription("one", Threaded())) as bench:
        assert await bench.deliveries.ask("one", where) == ("one", "watcher-one")
        with pytest.raises(KeyError):
            await bench.deliveries.ask("two", where)
    with pytest.raises(RuntimeError, match="has ended"):
        await bench.deliveries.ask("one", where)


async def test_what_does_not_drain_in_time_is_ended(journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck(Threaded):
        async def write(self, batch: Any) -> Any:
            there.set()
            await asyncio.Event().wait()

    there = threading.Event()
    monkeypatch.setattr(deliveries, "DRAIN_SECONDS_MAX", 0.1)
    async with Bench(journal, subscription("one", Stuck())):
        await asyncio.to_thread(there.wait, 10)
    assert "watcher-one" not in {thread.name for thread in threading.enumerate()}
    assert (await journal.cursors())["one"] == START


async def test_others_are_run_and_those_that_stay_go_on_undisturbed(journal: MemoryJournal) -> None:
    stays, goes, comes = subscription("stays", Threaded()), subscription("goes", Threaded()), Threaded()

    async def itself(loop: SubscriptionLoop) -> SubscriptionLoop:
        return loop

    async with Bench(journal, stays, goes) as bench:
        before = await bench.deliveries.ask("stays", itself)
        await bench.settled(6)
        await bench.deliveries.run_these([stays, subscription("comes", comes)])
        assert bench.deliveries.names == ["comes", "stays"]
        assert await bench.deliveries.ask("stays", itself) is before
        assert not goes.sink.is_open  # type: ignore[attr-defined]
        await bench.settled(9)
    # It keeps its cursor: only who forgets it on purpose loses it.
    assert (await journal.cursors())["goes"] == journal.last_position


async def test_without_subscriptions_there_is_nothing_to_drain(journal: MemoryJournal) -> None:
    async with Bench(journal) as bench:
        assert bench.deliveries.names == []
