"""The thread that a source runs in: its errors, its end, and that no handler holds it up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from backend_watcher.capture import run
from backend_watcher.capture.logical import LogicalSource
from backend_watcher.capture.run import CaptureThread
from backend_watcher.errors import SlotLost, SourceRefused

from .street import App, Street


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
    capture = CaptureThread(lambda: source)
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
    capture = CaptureThread(lambda: Fake(fail))
    capture.start()
    with pytest.raises(SlotLost, match="gone"):
        async with asyncio.timeout(10):
            await capture.finished
    await capture.stop()


async def test_a_source_that_cannot_even_be_made_is_an_error_too() -> None:
    def make() -> Fake:
        raise SourceRefused("no")

    capture = CaptureThread(make)
    capture.start()
    with pytest.raises(SourceRefused):
        async with asyncio.timeout(10):
            await capture.finished
    await capture.stop()


async def test_a_source_that_returns_has_finished() -> None:
    capture = CaptureThread(lambda: Fake(lambda: None))
    capture.start()
    async with asyncio.timeout(10):
        assert await capture.finished is None
    await capture.stop()


async def test_stopped_before_it_began_nothing_happens() -> None:
    capture = CaptureThread(Fake)
    await capture.stop()
    assert not capture.finished.done()


async def test_stopped_while_it_begins_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(20):
        source = Fake()
        capture = CaptureThread(lambda source=source: source)  # type: ignore[misc]
        capture.start()
        await capture.stop()
        assert not capture._thread.is_alive()


async def test_a_source_that_does_not_end_is_left_behind_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "STOP_SECONDS_MAX", 0.05)
    release = threading.Event()
    source = Fake(lambda: bool(release.wait(10)) and None)
    capture = CaptureThread(lambda: source)
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
        capture = CaptureThread(lambda: source)
        capture.start()
        threads.append(capture._thread)

    await asyncio.to_thread(asyncio.run, begin())
    source.release.set()  # type: ignore[attr-defined]
    await asyncio.to_thread(threads[0].join, 10)
    assert not threads[0].is_alive()


async def test_a_handler_that_blocks_its_loop_does_not_hold_up_capture(app: App, street: Street) -> None:
    street.change(dsn=f"{app.dsn}?options=-c%20wal_sender_timeout%3D500ms")
    capture = CaptureThread(lambda: LogicalSource(street.settings, street.journal, street.observer))
    capture.start()
    await street.observer.wait_for(lambda: "streaming" in street.observer.states)
    pid = await app.walsender(street.slot)
    await app.insert(1)
    # The very thread of this test stands still, four times as long as the server is patient.
    threading.Event().wait(2.0)
    assert await app.walsender(street.slot) == pid
    assert street.observer.states == ["connecting", "streaming"]
    assert await street.keys(1) == [1]
    await capture.stop()
    assert await capture.finished is None
