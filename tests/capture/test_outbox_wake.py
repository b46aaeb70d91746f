"""When the reader looks again: at once when it is notified, sooner or later without; and the alarm of a queue."""

from __future__ import annotations

import asyncio
import time

import pytest

from backend_watcher.capture import outbox_wake
from backend_watcher.capture.outbox_wake import QueueAlarm, Waker
from backend_watcher.postgres.connect import connect
from backend_watcher.testing.fakes import RecordingObserver

from .street import App


async def test_a_notification_wakes_and_what_has_come_is_not_kept(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_wake, "FALLBACK_SECONDS", 0.3)
    async with await connect(app.dsn, purpose="test") as conn:
        waker = Waker(conn, notify=True, poll_seconds=5)
        await waker.listen()
        begun = time.monotonic()
        await app.run("NOTIFY watcher_outbox")
        await waker.wait()
        assert time.monotonic() - begun < 0.3
        await app.run("NOTIFY watcher_outbox")
        await asyncio.to_thread(lambda: None)
        await waker.heard()
        begun = time.monotonic()
        await waker.wait()
        assert time.monotonic() - begun >= 0.25, "nothing had come since"
        assert conn.info.transaction_status.name == "IDLE"


async def test_without_notifications_it_looks_less_and_less_often(app: App) -> None:
    async with await connect(app.dsn, purpose="test") as conn:
        waker = Waker(conn, notify=False, poll_seconds=0.1)
        await waker.listen()
        took = []
        for _ in range(3):
            begun = time.monotonic()
            await waker.wait()
            took.append(time.monotonic() - begun)
        assert took[0] < 0.1 <= took[2] < 1
        await waker.heard()
        begun = time.monotonic()
        await waker.wait()
        assert time.monotonic() - begun < 0.1


def test_the_alarm_is_told_and_taken_back() -> None:
    observer = RecordingObserver()
    alarm = QueueAlarm(observer, "calm")
    for usage in (0.0, 0.09, 0.1, 0.5, 0.0, 0.0):
        alarm.judge(usage)
    assert observer.states == ["queue_alarm", "queue_alarm", "streaming"]
