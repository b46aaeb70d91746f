"""A thread with a loop of its own: its errors, its end, and asking it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from backend_watcher import threads
from backend_watcher.errors import SlotLost, SourceRefused
from backend_watcher.threads import LoopThread


class Fake:
    """A source that does what it is told."""

    def __init__(self, action: Callable[[], None] | None = None) -> None:
        self._action = action
        self.thread: threading.Thread | None = None
        self.begun = threading.Event()
        self.cancelled = threading.Event()

    async def run(self) -> None:
        self.thread = threading.current_thread()
        self.begun.set()
        if self._action is not None:
            self._action()
            return
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def fail() -> None:
    raise SlotLost("gone")


async def test_a_source_runs_in_a_thread_of_its_own_until_it_is_stopped() -> None:
    source = Fake()
    capture = LoopThread("test", lambda: source.run())
    capture.start()
    assert await asyncio.to_thread(source.begun.wait, 10)
    assert source.thread is not threading.main_thread()
    assert source.thread is not None
    assert source.thread.daemon
    assert not capture.finished.done()
    await capture.stop()
    assert source.cancelled.is_set()
    assert not source.thread.is_alive()
    async with asyncio.timeout(10):
        assert await capture.finished is None
    await capture.stop()


async def test_what_ends_it_is_raised_where_it_is_awaited() -> None:
    capture = LoopThread("test", lambda: Fake(fail).run())
    capture.start()
    with pytest.raises(SlotLost, match="gone"):
        async with asyncio.timeout(10):
            await capture.finished
    await capture.stop()


async def test_a_source_that_cannot_even_be_made_is_an_error_too() -> None:
    def make() -> Fake:
        raise SourceRefused("no")

    capture = LoopThread("test", make)
    capture.start()
    with pytest.raises(SourceRefused):
        async with asyncio.timeout(10):
            await capture.finished
    await capture.stop()


async def test_a_source_that_returns_has_finished() -> None:
    capture = LoopThread("test", lambda: Fake(lambda: None).run())
    capture.start()
    async with asyncio.timeout(10):
        assert await capture.finished is None
    await capture.stop()


async def test_stopped_before_it_began_nothing_happens() -> None:
    capture = LoopThread("test", lambda: Fake().run())
    await capture.stop()
    assert not capture.finished.done()


async def test_stopped_while_it_begins_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(20):
        source = Fake()
        capture = LoopThread("test", lambda source=source: source.run())  # type: ignore[misc]
        capture.start()
        await capture.stop()
        assert not capture._thread.is_alive()


async def test_a_source_that_does_not_end_is_left_behind_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "STOP_SECONDS_MAX", 0.05)
    release = threading.Event()
    source = Fake(lambda: bool(release.wait(10)) and None)
    capture = LoopThread("test", lambda: source.run())
    capture.start()
    assert await asyncio.to_thread(source.begun.wait, 10)
    async with asyncio.timeout(5):
        await capture.stop()
    assert capture._thread.is_alive()
    release.set()
    await asyncio.to_thread(capture._thread.join, 10)


async def test_an_error_nobody_waits_for_any_more_harms_nobody() -> None:
    # The outer loop is gone before the source ends.
    source = Fake(lambda: bool(source.release.wait(10)) and None)  # type: ignore[attr-defined]
    source.release = threading.Event()  # type: ignore[attr-defined]
    threads = []

    async def begin() -> None:
        capture = LoopThread("test", lambda: source.run())
        capture.start()
        threads.append(capture._thread)

    await asyncio.to_thread(asyncio.run, begin())
    source.release.set()  # type: ignore[attr-defined]
    await asyncio.to_thread(threads[0].join, 10)
    assert not threads[0].is_alive()


async def test_it_answers_from_its_own_loop_until_it_has_ended() -> None:
    source = Fake()
    thread = LoopThread("test", source.run)
    thread.start()

    async def where() -> threading.Thread:
        return threading.current_thread()

    assert await thread.ask(where) is source.thread
    await thread.stop()
    with pytest.raises(RuntimeError, match="thread test has ended"):
        await thread.ask(where)


async def test_what_it_no_longer_comes_to_is_refused_and_not_left_open() -> None:
    for _ in range(50):
        release = threading.Event()
        source = Fake(lambda release=release: bool(release.wait(10)) and None)  # type: ignore[misc]
        thread = LoopThread("test", source.run)
        thread.start()
        assert await asyncio.to_thread(source.begun.wait, 10)

        async def never() -> None:
            await asyncio.Event().wait()

        asked = [asyncio.create_task(thread.ask(never)) for _ in range(2)]
        await asyncio.sleep(0)
        release.set()
        async with asyncio.timeout(10):
            answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [str(answer) for answer in answers] == ["thread test has ended"] * 2
        asked = [asyncio.create_task(thread.ask(never))]
        async with asyncio.timeout(10):
            answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [str(answer) for answer in answers] == ["thread test has ended"]
