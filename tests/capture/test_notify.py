"""Notifications as messages: what comes, what is said of what does not, and that the listener holds up nobody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from backend_watcher.capture import notify
from backend_watcher.capture.notify import BEST_EFFORT, NotifySettings, NotifySource
from backend_watcher.contracts import Identity
from backend_watcher.errors import ConfigError, WrongCluster
from backend_watcher.events.message import Message
from backend_watcher.journal import MemoryJournal
from backend_watcher.testing.chunks import read_all
from backend_watcher.testing.fakes import RecordingObserver, SourceState

from .street import App, eventually


@asynccontextmanager
async def listening(app: App, journal: MemoryJournal, *channels: str) -> AsyncIterator[RecordingObserver]:
    observer = RecordingObserver()
    settings = NotifySettings(app.dsn, channels or ("orders",))
    task = asyncio.create_task(NotifySource(settings, journal, observer, usage_seconds=0.05).run())
    try:
        await observer.wait_for(lambda: "streaming" in observer.states)
        yield observer
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def messages(journal: MemoryJournal, count: int) -> list[Message]:
    async def enough() -> bool:
        await journal.flush()
        return len(await read_all(journal)) >= count

    await eventually(enough)
    found = await read_all(journal)
    assert len(found) == count
    return [Message(change) for change in found]


async def test_what_is_notified_comes_in_order_of_arrival(app: App, journal: MemoryJournal) -> None:
    async with listening(app, journal, "orders", "Größe x") as observer:
        await app.run("BEGIN; NOTIFY orders, 'a'; NOTIFY orders, 'b'; NOTIFY orders, 'a'; COMMIT")
        await app.run("BEGIN; NOTIFY orders, 'gone'; ROLLBACK", "NOTIFY other", "SELECT pg_notify('Größe x', 'ü')")
        found = await messages(journal, 3)
        assert SourceState("streaming", BEST_EFFORT) in observer.told
    assert [(one.prefix, one.text) for one in found] == [("orders", "a"), ("orders", "b"), ("Größe x", "ü")]
    assert [one.position for one in found] == sorted({one.position for one in found})
    assert found[0].event_id.split(":")[1] == "notify"


async def test_what_is_notified_while_nobody_listens_is_lost_and_places_are_not_given_again(
    app: App, journal: MemoryJournal
) -> None:
    async with listening(app, journal):
        await app.run("NOTIFY orders, '1'")
        await messages(journal, 1)
    await app.run("NOTIFY orders, '2'")
    async with listening(app, journal):
        await app.run("NOTIFY orders, '3'")
        found = await messages(journal, 2)
        assert [one.text for one in found] == ["1", "3"]
        await app.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'backend_watcher:listen'"
        )

        async def again() -> bool:
            await app.run("NOTIFY orders, '4'")
            return len(await read_all(journal)) > 2

        await eventually(again)
    assert len({one.event_id for one in await messages(journal, len(await read_all(journal)))}) >= 3


async def test_the_listener_is_in_no_transaction(app: App, journal: MemoryJournal) -> None:
    async with listening(app, journal):
        state = "SELECT state || coalesce(xact_start::text, '') FROM pg_stat_activity WHERE application_name = %s"
        assert await app.ask(state, "backend_watcher:listen") == "idle"


async def test_a_queue_that_fills_is_told_of(app: App, journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(_: object) -> float:
        return 0.5

    monkeypatch.setattr(notify.notifications, "queue_usage", full)
    async with listening(app, journal) as observer:
        await observer.wait_for(lambda: "queue_alarm" in observer.states)


async def test_what_finds_no_room_is_dropped_and_said_so(
    app: App, journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "WAITING_MAX", 2)
    async with listening(app, journal) as observer:
        await app.run("SELECT pg_notify('orders', n::text) FROM generate_series(1, 50) n")
        await observer.wait_for(lambda: "dropped" in observer.states)


@pytest.mark.parametrize(
    ("identity", "error"),
    [(Identity("7", 1, "watcher_shop", "p"), ConfigError), (Identity("7", 1, "notify", ""), WrongCluster)],
)
async def test_a_journal_of_another_stream_is_refused(
    app: App, journal: MemoryJournal, identity: Identity, error: type[Exception]
) -> None:
    await journal.save_identity(identity, 1)
    with pytest.raises(error):
        await NotifySource(NotifySettings(app.dsn, ("orders",)), journal, RecordingObserver()).run()
