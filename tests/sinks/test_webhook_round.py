"""Order within a key, barriers, and what is named as not delivered: all of it, and nothing else."""

from __future__ import annotations

import asyncio
import random

import pytest

from backend_watcher.errors import SinkFailed, SinkGone, SinkRejected, SinkUnavailable, SomeFailed
from backend_watcher.events.change import Change
from backend_watcher.sinks.webhook_round import WAITS, Round, stages
from backend_watcher.testing import builders

PRODUCTS = builders.table()
ORDERS = builders.table("public.orders", relation_oid=2)
NO_KEY = builders.table("public.log", {"line": "text"}, key=())


def row(key: int, of=PRODUCTS) -> Change:
    return builders.change("update", of, new={"id": key, "name": "x", "stock": 0})


def moved(before: int, after: int) -> Change:
    return builders.change("update", PRODUCTS, new={"id": after, "name": "x", "stock": 0}, old={"id": before})


TRUNCATE = builders.change("truncate", PRODUCTS)


def test_keys_go_at_once_and_barriers_by_themselves() -> None:
    batch = [row(1), row(2), row(1), row(1, ORDERS), TRUNCATE, row(1), moved(1, 2), row(2), row(1), row(2)]
    assert list(stages(batch)) == [[[0, 2], [1], [3]], [[4]], [[5]], [[6]], [[7, 9], [8]]]
    lines = [builders.change("insert", NO_KEY, new={"line": str(n)}) for n in range(3)]
    assert list(stages(lines)) == [[[0, 1, 2]]]


class Script:
    """Sends to nobody: fails where it is told, and notes what began and ended."""

    def __init__(self, batch: list[Change], failures: dict[int, Exception], draw: random.Random | None = None) -> None:
        self.index_of = {id(change): index for index, change in enumerate(batch)}
        self.failures = failures
        self.draw = draw
        self.log: list[tuple[str, int]] = []
        self.under_way: set[int] = set()
        self.most = 0

    async def send(self, change: Change) -> None:
        index = self.index_of[id(change)]
        self.log.append(("begun", index))
        self.under_way.add(index)
        self.most = max(self.most, len(self.under_way))
        for _ in range(self.draw.randrange(6) if self.draw else 1):
            await asyncio.sleep(0)
        self.under_way.discard(index)
        if index in self.failures:
            raise self.failures[index]
        self.log.append(("done", index))

    @property
    def done(self) -> set[int]:
        return {index for what, index in self.log if what == "done"}


async def failures_of(batch: list[Change], script: Script, connections: int = 8) -> dict[int, BaseException]:
    with pytest.raises(SomeFailed) as caught:
        await Round(batch, script.send, connections).run()
    named = caught.value.failures
    # The promise: delivered or named, never both, never neither.
    assert set(named) == set(range(len(batch))) - script.done
    return named


async def test_a_failed_change_holds_back_its_key_and_nothing_else() -> None:
    batch = [row(1), row(2), row(1), row(2), row(1), row(3)]
    fault = SinkRejected("no")
    script = Script(batch, {2: fault})
    named = await failures_of(batch, script)
    assert named[2] is fault
    assert set(named) == {2, 4}
    assert (type(named[4]), str(named[4])) == (SinkFailed, WAITS)
    assert ("begun", 4) not in script.log


async def test_an_error_that_all_would_meet_ends_the_batch() -> None:
    batch = [row(key) for key in range(100)]
    fault = SinkUnavailable("down", after_seconds=7)
    script = Script(batch, {5: fault})
    named = await failures_of(batch, script, connections=2)
    assert set(named.values()) == {fault}
    assert len([what for what, _ in script.log if what == "begun"]) <= 7


@pytest.mark.parametrize("fault", [SinkUnavailable("down"), SinkGone("410")])
async def test_where_nothing_was_delivered_the_error_comes_as_it_is(fault: Exception) -> None:
    batch = [row(1), row(2), row(1)]
    with pytest.raises(type(fault)) as caught:
        await Round(batch, Script(batch, {0: fault, 1: fault}).send, 8).run()
    assert caught.value is fault


async def test_a_failure_of_one_change_is_told_even_when_the_sink_is_down() -> None:
    batch = [row(1), row(2)]
    rejected, down = SinkRejected("no"), SinkUnavailable("down")
    named = await failures_of(batch, Script(batch, {0: rejected, 1: down}))
    assert named == {0: rejected, 1: down}


@pytest.mark.parametrize("barrier", [TRUNCATE, moved(1, 9)])
async def test_a_barrier_waits_for_all_and_all_wait_for_it(barrier: Change) -> None:
    batch = [row(1), row(2), barrier, row(3), row(4)]
    script = Script(batch, {})
    await Round(batch, script.send, 8).run()
    at = [script.log.index(("begun", 2)), script.log.index(("done", 2))]
    assert {index for _, index in script.log[: at[0]]} == {0, 1}
    assert {index for _, index in script.log[at[1] + 1 :]} == {3, 4}


async def test_what_is_owed_goes_on_through_barriers() -> None:
    batch = [row(1), row(2), moved(1, 9), row(9), row(2), row(3), moved(3, 4), row(1), TRUNCATE, row(5)]
    for failing, named in (
        (0, {0, 2, 3, 7, 8, 9}),
        (2, {2, 3, 7, 8, 9}),
        (5, {5, 6, 8, 9}),
        (8, {8, 9}),
        (9, {9}),
    ):
        script = Script(batch, {failing: SinkFailed("500")})
        assert set(await failures_of(batch, script)) == named
        assert {index for what, index in script.log if what == "begun"} == set(range(10)) - named | {failing}


async def test_keys_that_no_set_takes_and_tables_without_any() -> None:
    tags = builders.table("public.tags", {"id": "jsonb", "name": "text"})
    batch = [builders.change("insert", tags, new={"id": [1, 2], "name": name}) for name in "abc"]
    assert set(await failures_of(batch, Script(batch, {1: SinkFailed("500")}))) == {1, 2}
    batch = [builders.change("insert", NO_KEY, new={"line": str(n)}) for n in range(3)]
    script = Script(batch, {1: SinkFailed("500")})
    assert set(await failures_of(batch, script)) == {1}
    assert script.most == 1
    full = builders.table("public.log", {"line": "text"}, key=(), replica_identity="f")
    batch = [builders.change("insert", full, new={"line": line}) for line in "abc"]
    batch.append(builders.change("update", full, new={"line": "d"}, old={"line": "b"}))
    batch.append(builders.change("delete", full, old={"line": "d"}))
    batch.append(builders.change("delete", full, old={"line": "c"}))
    assert set(await failures_of(batch, Script(batch, {1: SinkFailed("500")}))) == {1, 3, 4}


async def test_a_surprise_is_that_change_s_failure() -> None:
    batch = [row(1), row(2)]
    surprise = KeyError("x")
    assert await failures_of(batch, Script(batch, {0: surprise})) == {0: surprise}


async def test_a_cancellation_is_no_failure() -> None:
    async def wait(change: Change) -> None:
        await asyncio.Event().wait()

    for batch in ([row(1)], [row(1), row(2)]):
        task = asyncio.create_task(Round(batch, wait, 8).run())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def concerns(change: Change, key: int) -> bool:
    return change.operation == "truncate" or (key,) in (change.key, change.key_before)


async def test_a_thousand_random_batches() -> None:
    draw = random.Random(11)
    most = 0
    for _ in range(1000):
        batch = [
            draw.choice([TRUNCATE, moved(1, 2)]) if draw.random() < 0.05 else row(draw.randrange(6)) for _ in range(30)
        ]
        # Of its own object each, so that the script can tell them apart.
        batch = [change.replace() for change in batch]
        kinds = [SinkFailed("500"), SinkRejected("413"), SinkUnavailable("503")]
        faults = {n: draw.choice(kinds) for n in range(30) if draw.random() < 0.03}
        script = Script(batch, faults, draw)
        try:
            await Round(batch, script.send, 4).run()
            named: dict[int, BaseException] = {}
        except SomeFailed as error:
            named = error.failures
        except SinkUnavailable:
            named = dict.fromkeys(range(30), kinds[2])
        assert set(named) == set(range(30)) - script.done
        for key in range(6):
            of_key = [n for n, change in enumerate(batch) if concerns(change, key)]
            ended = [n for what, n in script.log if what == "done" and n in of_key]
            assert ended == of_key[: len(ended)]
        most = max(most, script.most)
    assert most == 4
