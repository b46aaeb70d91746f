"""The sink at the end of the street: a receiver that fails in every way still gets all, in order, and once."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from aiohttp import web

from backend_watcher.delivery.retry import Patience
from backend_watcher.delivery.route import Route, Rule
from backend_watcher.delivery.run import SubscriptionLoop
from backend_watcher.delivery.subscription import Options, Subscription
from backend_watcher.events.position import START, Position, parse_lsn
from backend_watcher.journal import MemoryJournal
from backend_watcher.testing.fakes import OwnedClock, RecordingObserver
from delivery.feeding import Feed, Op
from delivery.test_run import Life
from sinks.receiver import Came, Receiver, hook, receiving

PRODUCTS = "public.products"
KINDS = ["insert", "update", "update", "update", "delete"]
CHANGES = 300


class Moody:
    """Fails as receivers do, and remembers what it took."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.took: list[Came] = []

    async def answer(self, came: Came) -> object:
        mood = self.dice.random()
        if mood < 0.7:
            self.took.append(came)
            return 200
        if mood < 0.75:
            return web.Response(status=503, headers={"Retry-After": "5"})
        if mood < 0.8:
            return web.Response(status=302, headers={"Location": "/elsewhere"})
        return self.dice.choice([400, 404, 429, 500, 502])


def position_of(came: Came) -> Position:
    lsn, _, ordinal = came.json["data"]["position"].rpartition(":")
    return Position(parse_lsn(lsn), int(ordinal))


async def deliver(receiver: Receiver, dice: random.Random, concurrency: int) -> int:
    """Commit changes, and have them delivered; return how many there were."""
    journal = MemoryJournal()
    await journal.open()
    options = replace(Options(), concurrency=concurrency, patience=replace(Patience(), attempts=10_000))
    sink = hook(receiver.url)
    wanted = Subscription("hook", Route({PRODUCTS: Rule(PRODUCTS)}), sink, (), options)
    observer = RecordingObserver()
    journal.save_cursor("hook", START)
    life = Life(SubscriptionLoop(wanted, journal, START, OwnedClock(free_running=True), observer), observer)
    feed = Feed(journal)
    for _ in range(CHANGES // 10):
        await feed.commit(*[Op(dice.choice(KINDS), dice.randrange(10)) for _ in range(10)])
    await observer.wait_for(lambda: len(receiver.answer.__self__.took) == CHANGES)
    await life.drain()
    assert await journal.held_keys("hook") == []
    await sink.close()
    await journal.close()
    return CHANGES


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_all_of_it_arrives_in_order_and_once(concurrency: int) -> None:
    dice = random.Random(43 + concurrency)
    moody = Moody(dice)
    async with receiving(moody.answer) as receiver:
        assert await deliver(receiver, dice, concurrency) == CHANGES
    ids = Counter(came.id for came in moody.took)
    assert (len(ids), max(ids.values())) == (CHANGES, 1)
    for key in range(10):
        positions = [position_of(came) for came in moody.took if came.json["data"]["key"]["id"] == key]
        assert positions == sorted(positions)
    # More was sent than taken, each time with the id of its change.
    assert len(receiver.came) > CHANGES * 1.1
    assert {came.id for came in receiver.came} == set(ids)
