"""A time limit for each call in a run of calls."""

from __future__ import annotations

import asyncio

import pytest

from backend_watcher.sinks.stopwatch import Stopwatch

LIMIT_SECONDS = 0.04


async def test_a_call_that_never_ends_is_ended_and_the_task_lives_on() -> None:
    with Stopwatch(LIMIT_SECONDS) as watch, pytest.raises(asyncio.CancelledError):
        await asyncio.Event().wait()
    assert watch.expired
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_long_run_of_short_calls_is_left_alone() -> None:
    clock = asyncio.get_running_loop().time
    end = clock() + 5 * LIMIT_SECONDS
    with Stopwatch(LIMIT_SECONDS) as watch:
        while clock() < end:
            await asyncio.sleep(0)
            watch.done += 1
    assert not watch.expired


async def test_a_cancellation_from_outside_is_not_ours() -> None:
    seen: list[bool] = []
    started = asyncio.Event()

    async def run() -> None:
        with Stopwatch(60) as watch:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                seen.append(watch.expired)

    task = asyncio.create_task(run())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == [False]
