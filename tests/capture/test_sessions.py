"""Sessions begun again: what is told, what ends it, and what nobody foresaw."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from backend_watcher.capture.sessions import keep_on
from backend_watcher.capture.together import run_together
from backend_watcher.errors import SourceRefused, SourceUnavailable, WatcherError
from backend_watcher.journal import MemoryJournal


class Source:
    """Each session fails with the next error; the last lives on."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.told: list[str] = []
        self.lives = asyncio.Event()

    async def session(self) -> None:
        if not self.errors:
            self.lives.set()
            await asyncio.Event().wait()
        await run_together(_fail(self.errors.pop(0)), asyncio.sleep(0))

    async def rest(self, error: WatcherError, delay: float) -> None:
        assert delay > 0
        self.told.append(error.message)

    async def run(self) -> None:
        await keep_on(self.session, MemoryJournal(), self.rest)


async def _fail(error: Exception) -> None:
    raise error


async def test_each_session_that_failed_is_told_of_and_followed_by_another() -> None:
    source = Source(SourceUnavailable("away"), SourceUnavailable("still away"))
    task = asyncio.create_task(source.run())
    await source.lives.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.told == ["away", "still away"]


async def test_what_needs_a_person_comes_out_as_it_is() -> None:
    source = Source(SourceUnavailable("away"), refused := SourceRefused("no"))
    with pytest.raises(SourceRefused) as caught:
        await source.run()
    assert caught.value is refused
    assert source.told == ["away"]


@pytest.mark.parametrize("make", [TypeError, KeyError, ValueError, AttributeError, AssertionError])
async def test_what_nobody_foresaw_is_tried_once_more_and_then_believed(make: Callable[[str], Exception]) -> None:
    source = Source(make("an unexpected keyword 'named6'"), again := make("the same"))
    with pytest.raises(type(again)) as caught:
        await source.run()
    assert caught.value is again
    assert len(source.told) == 1
    assert "makes no sense" in source.told[0]
    assert "named6" in source.told[0]


async def test_an_error_of_ours_counts_more_than_what_nobody_foresaw() -> None:
    source = Source(ExceptionGroup("both", [TypeError("odd"), SourceUnavailable("away")]), SourceRefused("no"))
    with pytest.raises(SourceRefused):
        await source.run()
    assert source.told == ["away"]


async def test_what_is_no_accident_of_an_answer_ends_it_at_once() -> None:
    source = Source(MemoryError("full"))
    with pytest.raises(ExceptionGroup):
        await source.run()
    assert source.told == []
