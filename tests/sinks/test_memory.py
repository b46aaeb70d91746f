"""The memory sink: keeps, forgets the oldest, and fails as told."""

from __future__ import annotations

import asyncio

import pytest

from backend_watcher.contracts import Receipt
from backend_watcher.errors import PartlyWritten, SinkRejected, SinkTimeout, SinkUnavailable
from backend_watcher.sinks.memory import FailAfterWrite, Hold, Memory, Reject, Slow, Unavailable
from backend_watcher.testing.conformance_sink import insert

BATCH = [insert(1, 1, "a"), insert(2, 2, "b"), insert(3, 3, "c")]


async def test_it_keeps_what_came_and_forgets_the_oldest() -> None:
    sink = Memory(kept_max=2)
    assert await sink.write(BATCH) is Receipt.DURABLE
    assert list(sink.changes) == BATCH[1:]
    assert (sink.count, sink.batches) == (3, 1)
    assert sink.describe() == {"kind": "memory", "changes": 3}


async def test_it_can_owe_durability() -> None:
    sink = Memory(receipt=Receipt.ACCEPTED)
    assert await sink.write(BATCH) is Receipt.ACCEPTED
    await sink.flush()
    assert sink.flushes == 1


async def test_it_says_whether_it_is_open() -> None:
    sink = Memory()
    await sink.open()
    assert sink.is_open
    await sink.close()
    assert not sink.is_open


async def test_faults_come_in_order_and_end() -> None:
    sink = Memory()
    sink.script(Unavailable("gone"), FailAfterWrite("lost"), None, Reject("no", settled=1), Slow(0))
    with pytest.raises(SinkUnavailable, match="gone"):
        await sink.write(BATCH)
    assert sink.count == 0
    with pytest.raises(SinkTimeout, match="lost"):
        await sink.write(BATCH)
    assert sink.count == 3
    await sink.write(BATCH)
    assert sink.count == 6
    with pytest.raises(PartlyWritten) as caught:
        await sink.write(BATCH)
    assert (caught.value.settled, type(caught.value.cause), sink.count) == (1, SinkRejected, 7)
    await sink.write(BATCH)
    await sink.write(BATCH)
    assert sink.count == 13


async def test_a_held_write_waits_for_its_release() -> None:
    sink = Memory()
    hold = Hold()
    sink.script(hold)
    task = asyncio.create_task(sink.write(BATCH))
    await hold.reached.wait()
    assert sink.count == 0
    hold.release.set()
    await sink.wait_for(3)
    assert await task is Receipt.DURABLE
