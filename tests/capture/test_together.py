"""Tasks that end together: by an error, by all being done, by being told to."""

from __future__ import annotations

import asyncio

import pytest

from backend_watcher.capture.together import first_error, leaves, run_together
from backend_watcher.errors import SourceRefused, SourceUnavailable


class Slow:
    """Waits for ever, and takes its time to end."""

    def __init__(self) -> None:
        self.ending = asyncio.Event()
        self.may_end = asyncio.Event()
        self.ended = False

    async def work(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.ending.set()
            while not self.may_end.is_set():
                try:
                    await self.may_end.wait()
                except asyncio.CancelledError:
                    continue
            self.ended = True


async def fail() -> None:
    raise KeyError("colour")


async def nothing() -> None:
    return


async def test_one_that_fails_ends_the_others_first() -> None:
    slow = Slow()
    slow.may_end.set()
    with pytest.raises(ExceptionGroup) as caught:
        await run_together(slow.work(), nothing(), fail())
    assert [type(error) for error in caught.value.exceptions] == [KeyError]
    assert slow.ended


async def test_all_done_is_the_end() -> None:
    await run_together(nothing(), nothing())


async def test_told_to_stop_they_all_end() -> None:
    slow = Slow()
    slow.may_end.set()
    task = asyncio.create_task(run_together(slow.work(), nothing()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert slow.ended


async def test_told_to_stop_while_one_has_failed_it_stops() -> None:
    slow = Slow()
    task = asyncio.create_task(run_together(slow.work(), fail()))
    await slow.ending.wait()
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    slow.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert slow.ended


def test_an_error_that_needs_a_person_goes_before_one_that_time_mends() -> None:
    later, stop = SourceUnavailable("gone"), SourceRefused("no")
    assert first_error(leaves(BaseExceptionGroup("x", [later, BaseExceptionGroup("y", [stop, KeyError()])]))) is stop
    assert first_error([KeyError(), later]) is later
    assert first_error(leaves(later)) is later
