"""Which process works for whom."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend_watcher.sinks.process_pool import STUCK_SECONDS, Lease, Workers

from .workshop import gone, setup

SECONDS_MAX = 20.0


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Workers]:
    workers = Workers(setup(tmp_path, "@watcher.on('x')\ndef work(change): pass\n"), 2)
    await workers.join("a")
    await workers.join("b")
    yield workers
    await workers.leave("a")
    await workers.leave("b")


def pid(lease: Lease) -> int:
    assert lease.child is not None
    return lease.child.pid


async def nothing_comes(task: asyncio.Task[Lease]) -> None:
    for _ in range(100):
        await asyncio.sleep(0)
    assert not task.done()


async def test_a_process_is_used_again_and_no_more_are_started_than_work(workers: Workers) -> None:
    first = await workers.lease("a")
    pids = {pid(first)}
    workers.give_back(first)
    for _ in range(5):
        lease = await workers.lease("b")
        pids.add(pid(lease))
        workers.give_back(lease)
    assert len(pids) == 1


async def test_who_has_the_fewest_is_next(workers: Workers) -> None:
    one, two = await workers.lease("a"), await workers.lease("a")
    third = asyncio.create_task(workers.lease("a"))
    await nothing_comes(third)
    other = asyncio.create_task(workers.lease("b"))
    await nothing_comes(other)
    workers.give_back(one)
    lease = await other
    await nothing_comes(third)
    workers.give_back(two)
    workers.give_back(lease)
    workers.give_back(await third)


async def test_stuck_processes_of_one_leave_their_places_to_others(workers: Workers) -> None:
    stuck = [await workers.lease("a"), await workers.lease("a")]
    greedy = asyncio.create_task(workers.lease("a"))
    other = asyncio.create_task(workers.lease("b"))
    await nothing_comes(other)
    for lease in stuck:
        workers.note_silence(lease, STUCK_SECONDS)
    async with asyncio.timeout(SECONDS_MAX):
        spare = await other
    assert pid(spare) not in map(pid, stuck)
    await nothing_comes(greedy)
    # They go on after all: what is too many ends.
    pids = [pid(lease) for lease in [*stuck, spare]]
    for lease in stuck:
        workers.note_silence(lease, 0.0)
        workers.give_back(lease)
    workers.give_back(spare)
    workers.give_back(await greedy)
    async with asyncio.timeout(SECONDS_MAX):
        while sum(gone(one) for one in pids) < 1:
            await asyncio.sleep(0)
    assert sum(gone(one) for one in pids) == 1


async def test_who_stops_waiting_keeps_nothing(workers: Workers) -> None:
    one, two = await workers.lease("a"), await workers.lease("b")
    waits = asyncio.create_task(workers.lease("a"))
    await nothing_comes(waits)
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    granted = asyncio.create_task(workers.lease("a"))
    await nothing_comes(granted)
    workers.give_back(one)
    granted.cancel()
    with pytest.raises(asyncio.CancelledError):
        await granted
    async with asyncio.timeout(SECONDS_MAX):
        workers.give_back(await workers.lease("b"))
    workers.give_back(two)


async def test_one_that_ended_is_replaced(workers: Workers) -> None:
    lease = await workers.lease("a")
    first = pid(lease)
    workers.give_back(lease)
    os.kill(first, signal.SIGKILL)
    while not gone(first):
        await asyncio.sleep(0)
    # The system may tell the parent a moment later than us.
    lease = await workers.lease("a")
    async with asyncio.timeout(10):
        while pid(lease) == first:
            workers.give_back(lease)
            await asyncio.sleep(0)
            lease = await workers.lease("a")
    workers.give_back(lease)


async def test_loops_of_several_threads_share_them(workers: Workers) -> None:
    async def use(user: str) -> None:
        for _ in range(50):
            lease = await workers.lease(user)
            await asyncio.sleep(0)
            workers.give_back(lease)

    async def lanes(user: str) -> None:
        await asyncio.gather(*(use(user) for _ in range(4)))

    threads = [threading.Thread(target=asyncio.run, args=(lanes(user),)) for user in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join, SECONDS_MAX)
        assert not thread.is_alive()


async def test_the_last_who_leaves_ends_them(tmp_path: Path) -> None:
    workers = Workers(setup(tmp_path, ""), 1)
    await workers.join("a")
    await workers.join("b")
    lease = await workers.lease("a")
    only = pid(lease)
    workers.give_back(lease)
    await workers.leave("a")
    assert not gone(only)
    await workers.leave("b")
    assert gone(only)
    await workers.leave("b")
