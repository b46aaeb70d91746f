"""The whole watcher on a real PostgreSQL and a real Valkey: what is visible, what is set back, what a scan finds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from structlog.testing import capture_logs

from backend_watcher import Watcher
from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey
from backend_watcher.journal import SqliteJournal
from backend_watcher.service import continuous, scanning
from backend_watcher.service import supervise as supervise_module
from backend_watcher.service.config import Config, load_config
from backend_watcher.service.continuous import Continuous
from backend_watcher.service.control import SubscriptionStatus, status
from backend_watcher.service.subscribed import subscription_of
from backend_watcher.service.supervise import supervise
from backend_watcher.sinks import RedisCache, Stdout
from backend_watcher.testing.fakes import PATIENCE_SECONDS, RecordingObserver

LOOKS_SECONDS = (1.0, 1.5, 2.0)
"""A minute is long for a test; the first is the one that users are told of."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(settings={"fsync": "off"}) as server:
        yield server


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


class Stage:
    """Both sides, and a watcher that runs in this process when it is told to."""

    def __init__(self, connection: psycopg.AsyncConnection, cache: redis.Redis, config: Config, url: str) -> None:
        self.connection = connection
        self.cache = cache
        self.config = config
        self.url = url

    def watcher(self, **options: Any) -> Watcher:
        watcher = Watcher("shop")
        watcher.to(RedisCache("item:{id}", url=self.url), table="items", name="cache", **options)
        return watcher

    @asynccontextmanager
    async def running(self, **options: Any) -> AsyncIterator[None]:
        run = asyncio.create_task(supervise(self.config, self.watcher(**options)))
        cursor = self.connection.cursor()
        while True:
            assert not run.done(), run.result()
            await cursor.execute("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
            row = await cursor.fetchone()
            if row and row[0]:
                break
        yield
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(run, PATIENCE_SECONDS) == 0
        assert "watcher-proof" not in {thread.name for thread in threading.enumerate()}

    async def sql(self, statement: str) -> None:
        await self.connection.execute(statement.encode())

    async def holds(self, key: str, **fields: Any) -> None:
        await self.until(lambda: json.loads(self.cache.get(key) or b"{}").items() >= fields.items(), f"{key} {fields}")

    async def status(self) -> SubscriptionStatus:
        (one,) = (await status(self.config)).subscriptions
        return one

    async def until(self, so: Callable[[], bool], what: str) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not so():
                await asyncio.sleep(0)
        assert so(), what

    async def shows(self, so: Callable[[SubscriptionStatus], bool]) -> SubscriptionStatus:
        """Return the status when it is as it should be."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not so(found := await self.status()):
                await asyncio.sleep(0)
        return found


@pytest.fixture
async def stage(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    faster = partial(Continuous, looks_seconds=LOOKS_SECONDS, look_seconds=0.1, tick_seconds=0.1)
    monkeypatch.setattr(supervise_module, "Continuous", faster)
    environ = {"WATCHER_SOURCE__DSN": postgres.dsn, "WATCHER_JOURNAL__PATH": str(tmp_path / "shop.journal")}
    config = load_config(None, environ, watcher=Watcher("shop"))
    cache = redis.Redis.from_url(valkey.url)
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as connection:
        await connection.execute("CREATE TABLE items (id int PRIMARY KEY, stock int NOT NULL)")
        yield Stage(connection, cache, config, valkey.url)
        await connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        await connection.execute("DROP PUBLICATION IF EXISTS watcher_shop")
        await connection.execute("DROP TABLE items")
    cache.flushall()
    cache.close()


def visible(one: SubscriptionStatus) -> list[tuple[float, int, int, int]]:
    if one.read_back is None:
        return []
    return [(w["seconds"], w["visible"], w["missed"], w["unknown"]) for w in one.read_back["within"]]


async def test_all_of_a_small_load_is_visible_within_a_second(stage: Stage) -> None:
    async with stage.running(read_back_per_second=100):
        for number in range(40):
            await stage.sql(f"INSERT INTO items VALUES ({number}, 1)")
            await stage.sql(f"UPDATE items SET stock = 2 WHERE id = {number}")
        await stage.sql("DELETE FROM items WHERE id < 20")
        seen = await stage.shows(lambda one: len(visible(one)) == 3 and visible(one)[2][1] >= 100)
    assert visible(seen) == [(seconds, 100, 0, 0) for seconds in LOOKS_SECONDS]
    assert seen.read_back is not None
    assert [one["share"] for one in seen.read_back["within"]] == [1.0, 1.0, 1.0]
    assert seen.drift == ()


async def test_what_is_set_back_is_alarmed_until_it_is_mended_and_a_restart_does_not_end_it(stage: Stage) -> None:
    with capture_logs() as logs:
        async with stage.running():
            await stage.sql("INSERT INTO items VALUES (7, 1), (8, 1)")
            await stage.holds("item:7", stock=1)
            old = stage.cache.get("item:7")
            await stage.sql("UPDATE items SET stock = 2 WHERE id = 7")
            await stage.holds("item:7", stock=2)
            right = stage.cache.get("item:7")
            stage.cache.set("item:7", old)
            found = await stage.shows(lambda one: bool(one.drift))
            (alarm,) = found.drift
            assert (alarm["table"], alarm["entry"], alarm["kind"]) == ("public.items", "item:7", "different")
            assert visible(found)[2][2] >= 1
        assert (await stage.status()).drift == (alarm,)
        async with stage.running():
            await stage.sql("UPDATE items SET stock = 3 WHERE id = 8")
            await stage.holds("item:8", stock=3)
            assert (await stage.status()).drift == (alarm,)
            stage.cache.set("item:7", right)
            await stage.shows(lambda one: not one.drift)
    told = [entry for entry in logs if entry["event"].startswith("drift")]
    assert [(one["event"].split(":")[0], one["table"]) for one in told] == [
        ("drift", "public.items"),
        ("drift is over", "public.items"),
    ]
    assert "stock" not in json.dumps(logs, default=str)


async def test_a_cache_that_is_away_is_read_back_when_it_is_there_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuous, "AWAY_SECONDS", 0.1)
    with capture_logs() as logs:
        async with stage.running():
            await stage.sql("INSERT INTO items VALUES (1, 1)")
            await stage.holds("item:1", stock=1)
            # Whoever speaks to it is thrown out, and nobody is let in.
            stage.cache.config_set("maxclients", 1)
            stage.cache.client_kill_filter(_type="normal", skipme=True)
            await stage.until(lambda: any("read back just now" in one["event"] for one in logs), "it is said")
            stage.cache.config_set("maxclients", 1000)
            seen = await stage.shows(lambda one: len(visible(one)) == 3 and visible(one)[2][1] >= 1)
            assert visible(seen) == [(seconds, 1, 0, 0) for seconds in LOOKS_SECONDS]


async def test_a_slow_scan_finds_what_was_done_by_hand_and_a_restart_keeps_what_it_found(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = [0.0]
    monkeypatch.setattr(supervise_module, "Continuous", partial(Continuous, wall=lambda: time.time() + ahead[0]))
    monkeypatch.setattr(scanning, "POLL_SECONDS_MAX", 0.1)
    options = {"verify_every_seconds": 3600.0, "read_back_per_second": 0}
    with capture_logs() as logs:
        async with stage.running(**options):
            await stage.shows(lambda one: one.scans is not None and one.scans["last"] is not None)
            await stage.sql("INSERT INTO items SELECT n, 1 FROM generate_series(1, 500) n")
            await stage.until(lambda: stage.cache.exists("item:500") == 1, "all rows")
            ahead[0] = 3700.0
            equal = await stage.shows(lambda one: one.scans is not None and one.scans["last"]["begun_at"] > _at(3600))
            assert (equal.scans["last"]["verdict"], _counts(equal)) == ("equal", (500, 500, 0, 0, 0))
            stage.cache.set("item:7", "{}")
            stage.cache.delete("item:8")
            stage.cache.set("item:999", "{}")
            ahead[0] = 7400.0
            found = await stage.shows(lambda one: one.scans is not None and one.scans["last"]["begun_at"] > _at(7300))
            assert (found.scans["last"]["verdict"], _counts(found)) == ("different", (500, 500, 1, 1, 1))
        assert (await stage.status()).scans == found.scans
        async with stage.running(**options):
            # Not due yet: nothing is compared again, and what was found is still said.
            await stage.sql("INSERT INTO items VALUES (501, 1)")
            await stage.until(lambda: stage.cache.exists("item:501") == 1, "the new row")
            assert (await stage.status()).scans == found.scans
    told = [(one["verdict"], one["log_level"]) for one in logs if one["event"] == "verified"]
    assert told == [("equal", "info"), ("equal", "info"), ("different", "error")]


def _at(seconds: float) -> float:
    return time.time() + seconds - 60


def _counts(one: SubscriptionStatus) -> tuple[int, ...]:
    assert one.scans is not None
    (table,) = one.scans["last"]["tables"].values()
    return tuple(table[name] for name in ("rows", "entries", "missing", "extra", "different"))


# What needs no server


ENVIRON = {"WATCHER_SOURCE__DSN": "postgresql://127.0.0.1:1/x"}


def known(tmp_path: Path, watcher: Watcher) -> Continuous:
    config = load_config(None, ENVIRON, watcher=watcher)
    found = Continuous(config, SqliteJournal(tmp_path / "j"), RecordingObserver())
    found.know([subscription_of(one, watcher) for one in watcher.wanted])
    return found


async def test_only_those_that_are_read_back_are_told_of_what_is_delivered(tmp_path: Path) -> None:
    watcher = Watcher("shop")
    watcher.to(RedisCache("a:{id}"), table="a", name="cache")
    watcher.to(RedisCache("b:{id}"), table="a", name="scanned", read_back_per_second=0, verify_every_seconds=60)
    watcher.to(RedisCache("c:{id}"), table="a", name="never", read_back_per_second=0)
    watcher.to(Stdout(), table="a", name="lines")
    subscriptions = [subscription_of(one, watcher) for one in watcher.wanted]
    found = known(tmp_path, watcher)
    assert [one.name for one in subscriptions if found.taken(one) is not None] == ["cache"]
    assert sorted(found._readables) == ["cache", "scanned"]


async def test_one_that_stays_keeps_its_tap_and_no_sink_is_copied_once_it_was_opened(tmp_path: Path) -> None:
    watcher = Watcher("shop")
    watcher.to(RedisCache("a:{id}"), table="a", name="stays")
    watcher.to(RedisCache("b:{id}"), table="a", name="other")
    found = known(tmp_path, watcher)
    stays, other = (subscription_of(one, watcher) for one in watcher.wanted)
    found.know([stays, other])
    tap, pristine = found.taken(stays), found._readables["other"].pristine
    # It has other options now, and the very same sink, which cannot be copied any more.
    other.sink._server._pool = threading.Lock()  # type: ignore[attr-defined]
    again = subscription_of(watcher.wanted[1], watcher)
    found.know([stays, again])
    assert found.taken(stays) is tap
    assert found._readables["other"].pristine is pristine
    reader = found._readables["other"].reader()
    assert reader is not pristine
    assert reader.scope(None) == "b:{id}"  # type: ignore[arg-type]


async def test_a_sink_that_cannot_be_copied_is_said_and_delivers_all_the_same(tmp_path: Path) -> None:
    class Locked(RedisCache):
        def __init__(self) -> None:
            super().__init__("a:{id}")
            self.lock = threading.Lock()

    watcher = Watcher("shop")
    watcher.to(Locked(), table="a", name="cache")
    with capture_logs() as logs:
        found = known(tmp_path, watcher)
    assert [entry["event"] for entry in logs] == ["not read back: its sink cannot be copied"]
    assert found.taken(subscription_of(watcher.wanted[0], watcher)) is None


async def test_what_is_no_longer_looked_for_is_forgotten(tmp_path: Path) -> None:
    watcher = Watcher("shop")
    watcher.to(RedisCache("a:{id}"), table="a", name="scanned", read_back_per_second=0, verify_every_seconds=60)
    watcher.to(RedisCache("b:{id}"), table="a", name="never", read_back_per_second=0)
    journal = SqliteJournal(tmp_path / "j")
    await journal.open()
    try:
        for kind in ("read_back", "drift", "scan"):
            for name in ("scanned", "never"):
                await journal.set_note(f"{kind}:{name}", "{}")
        config = load_config(None, ENVIRON | {"WATCHER_JOURNAL__PATH": str(tmp_path / "j")}, watcher=watcher)
        found = Continuous(config, journal, RecordingObserver())
        found.know([subscription_of(one, watcher) for one in watcher.wanted])
        found.start()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await journal.get_note("scan:never") is not None:
                await asyncio.sleep(0)
        await found.stop()
        left = [
            f"{kind}:{name}"
            for kind in ("read_back", "drift", "scan")
            for name in ("scanned", "never")
            if await journal.get_note(f"{kind}:{name}") is not None
        ]
        assert left == ["scan:scanned"]
    finally:
        await journal.close()


async def test_what_fails_here_ends_by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def breaks(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Continuous, "_tick", breaks)
    watcher = Watcher("shop")
    watcher.to(RedisCache("a:{id}"), table="a", name="cache")
    journal = SqliteJournal(tmp_path / "j")
    await journal.open()
    config = load_config(None, ENVIRON | {"WATCHER_JOURNAL__PATH": str(tmp_path / "j")}, watcher=watcher)
    found = Continuous(config, journal, RecordingObserver())
    found.know([subscription_of(one, watcher) for one in watcher.wanted])
    with capture_logs() as logs:
        found.start()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not logs:
                await asyncio.sleep(0)
        await found.stop()
    await journal.close()
    assert [(one["event"], one["error"]) for one in logs] == [("no longer read back", "RuntimeError: a bug")]


async def test_what_does_not_end_in_time_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuous, "STOP_SECONDS_MAX", 0.05)
    watcher = Watcher("shop")
    watcher.to(RedisCache("a:{id}"), table="a", name="cache")
    release, there = threading.Event(), threading.Event()

    async def stuck(self: Continuous) -> None:
        there.set()
        release.wait(PATIENCE_SECONDS)

    monkeypatch.setattr(Continuous, "_run", stuck)
    found = known(tmp_path, watcher)
    found.start()
    await asyncio.to_thread(there.wait, PATIENCE_SECONDS)
    with capture_logs() as logs:
        await found.stop()
    assert [entry["event"] for entry in logs] == ["reading back does not end in time, and is left"]
    release.set()
    await found.stop()
