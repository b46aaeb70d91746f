"""Operations from outside: through the process that runs, else on the journal; moments as people write them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backend_watcher.contracts import HeldChange
from backend_watcher.errors import ConfigError, JournalError, JournalLocked
from backend_watcher.events.position import START, Position
from backend_watcher.journal.sqlite import SqliteJournal
from backend_watcher.service import operate
from backend_watcher.service.config import Config, JournalConfig, SourceConfig
from backend_watcher.service.remote import RemoteControl
from backend_watcher.service.steering import Answer, Request
from backend_watcher.testing import builders
from backend_watcher.testing.chunks import ChunkMaker
from backend_watcher.testing.conformance_held import KEY

PAUSE = Request(operation="pause", subscription="cache", by="root")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    source = SourceConfig("", "watcher_shop", "watcher_shop", 10.0)
    return Config("shop", source, JournalConfig(tmp_path / "shop.journal", 1 << 30, 3600.0, 1 << 30))


@pytest.fixture
async def journal(config: Config) -> AsyncIterator[SqliteJournal]:
    journal = SqliteJournal(config.journal.path, now=iter(range(100, 10_000)).__next__)
    await journal.open()
    journal.save_cursor("cache", START)
    yield journal
    await journal.close()


def answering(said: str) -> Callable[[Request], Awaitable[Answer]]:
    async def answer(request: Request) -> Answer:
        return Answer(said=f"{request.operation}: {said}")

    return answer


async def test_the_process_that_has_the_journal_is_asked(config: Config, journal: SqliteJournal) -> None:
    control = RemoteControl(config.journal.path, answering("by the process"))
    await control.open()
    assert await operate.operate(config, None, PAUSE) == "pause: by the process"
    await control.close()


async def test_without_a_process_it_is_done_on_the_journal(config: Config, journal: SqliteJournal) -> None:
    await journal.close()
    assert await operate.operate(config, None, PAUSE) == "paused"
    assert [entry.action for entry in operate.audits(config, 10)] == ["pause"]


async def test_a_process_that_does_not_answer_is_named(config: Config, journal: SqliteJournal) -> None:
    with pytest.raises(JournalLocked, match="it does not answer"):
        await operate.operate(config, None, PAUSE)


async def test_what_is_refused_is_an_error(config: Config, journal: SqliteJournal) -> None:
    await journal.close()
    with pytest.raises(ConfigError, match="'cash' is unknown; there are: cache"):
        await operate.operate(config, None, Request(operation="pause", subscription="cash", by="root"))


async def test_without_a_journal_nothing_is_made(config: Config) -> None:
    with pytest.raises(JournalError, match="no journal"):
        await operate.operate(config, None, PAUSE)
    assert not config.journal.path.exists()


async def test_what_is_held_can_be_looked_at_while_the_process_runs(config: Config, journal: SqliteJournal) -> None:
    held = [HeldChange(1, number, builders.change(new={"id": 1}, ordinal=number)) for number in range(3)]
    journal.hold_changes("cache", held, replace(KEY, due_at=None))
    await journal.flush()
    keys = await asyncio.to_thread(operate.held_keys, config)
    assert {name: [key.number for key in found] for name, found in keys.items()} == {"cache": [1]}
    key, changes = await asyncio.to_thread(operate.held_key, config, "cache", 1)
    assert [change.ordinal for change in changes] == [0, 1, 2]
    values = operate.key_values(key)
    assert (values["state"], values["key"], values["changes"]) == ("parked", {"id": 1}, 3)
    assert (values["first_failed_at"], values["next_try_at"]) == ("1970-01-01T00:16:40.250+00:00", None)
    with pytest.raises(ConfigError, match="holds no key number 7"):
        operate.held_key(config, "cache", 7)


@pytest.mark.parametrize(
    ("text", "after"), [("5s", 0x1200), ("1d", None), ("1970-01-01T00:01:42+00:00", 0x1200), ("2999-01-01", 0x1300)]
)
async def test_a_moment_becomes_a_position(
    config: Config, journal: SqliteJournal, text: str, after: int | None
) -> None:
    make = ChunkMaker()
    for _ in range(3):
        await journal.append(make())
    await journal.flush()
    # The three were captured at 100, 101 and 102 by the journal's clock, more or less: it is asked elsewhere too.
    with operate.open_journal(config) as view:
        times = [view.position_before(moment) for moment in range(95, 130)]
    assert (times[0], times[-1].commit_lsn) == (START, 0x1300)
    assert times == sorted(times)
    found = await asyncio.to_thread(operate.position_since, config, text, lambda: 105.0)
    assert isinstance(found, Position)
    if text in ("1d", "2999-01-01"):
        assert found.commit_lsn == (after or 0)


@pytest.mark.parametrize("text", ["", "soon", "5 weeks", "2026-13-01", "-3h"])
async def test_what_is_no_moment_is_refused(config: Config, journal: SqliteJournal, text: str) -> None:
    with pytest.raises(ConfigError, match="is no moment; right would be"):
        operate.position_since(config, text)


def test_a_local_moment_is_read_in_the_local_zone() -> None:
    assert operate._moment("2026-01-31T09:00+00:00", 0.0) == datetime(2026, 1, 31, 9, tzinfo=UTC).timestamp()
    assert operate._moment("2026-01-31T09:00", 0.0) == datetime(2026, 1, 31, 9).astimezone().timestamp()


def test_every_bad_position_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        operate.positions([("--from", "x"), ("--to", "y"), ("--other", None)])
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["--from", "--to"]
    assert operate.who()
