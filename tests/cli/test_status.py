"""`watcher status`: how things are shown. What is known is shown in tests/service/test_control.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend_watcher.contracts import JournalState
from backend_watcher.events.position import Position
from backend_watcher.service import control
from backend_watcher.service.control import ProcessStatus, SlotStatus, SourceStatus, Status, SubscriptionStatus
from cli.commands import Done

Run = Callable[..., Done]

CURSOR = Position(0x1600000100, 3)


def make(**changes: Any) -> Status:
    slot = SlotStatus("watcher_shop", True, 0x1600000200, 2048, "reserved", False)
    cache = SubscriptionStatus("cache", "retrying", CURSOR, 4096, 61.0, "SinkTimeout: slow", "faster", 4, 1.0)
    fields = {
        "name": "shop",
        "journal_path": Path("x.journal"),
        "process": ProcessStatus(12, True, "running", time.time() - 300, "streaming", ""),
        "source": SourceStatus("db:5432/shop", True, None, None, slot),
        "journal": JournalState(CURSOR, CURSOR, 0x1600000300, 7, 1536, time.time() - 7200, True),
        "subscriptions": (cache,),
    }
    return Status(**fields | changes)


@pytest.fixture
def now(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Status]:
    (folder / "watcher.toml").write_text('name = "shop"\n')
    found: list[Status] = []

    async def status(*_: Any) -> Status:
        return found[0]

    monkeypatch.setattr(control, "status", status)
    return found


def test_wal_that_is_held_back_is_shown_against_its_budget(run: Run, now: list[Status]) -> None:
    slot = SlotStatus("s", True, 0x100, 6 << 30, "extended", False, 10 << 30, "the slot holds much")
    now.append(make(source=SourceStatus("db:5432/shop", True, None, None, slot)))
    assert "holds 6.0 GiB of WAL (of 10.0 GiB); WARNING: the slot holds much" in run("status").out


def test_everything_for_people(run: Run, now: list[Status]) -> None:
    now.append(make())
    done = run("status")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "watcher  shop",
        "process  pid 12, for 5 min; source streaming",
        "source   db:5432/shop",
        "slot     watcher_shop: active, confirmed 16/200, holds 2.0 KiB of WAL",
        "journal  x.journal: 1.5 KiB in 7 blocks, oldest 2 h ago, durable to 16/300; FULL: capture waits",
        "subscription  state     cursor    behind   for   failing keys  last error",
        "cache         retrying  16/100:3  4.0 KiB  61 s                SinkTimeout: slow (attempt 4)",
    ]


def test_everything_for_programs(run: Run, now: list[Status]) -> None:
    now.append(make())
    shown = run("status", "--json").json
    assert shown["exit_code"] == 0
    assert shown["subscriptions"][0]["cursor"] == "16/100:3"
    assert (shown["subscriptions"][0]["lag_bytes"], shown["journal"]["durable_lsn"]) == (4096, "16/300")
    assert shown["source"]["slot"]["confirmed_flush_lsn"] == "16/200"


def test_what_is_not_there(run: Run, now: list[Status]) -> None:
    now.append(make(process=None, source=None, journal=None, subscriptions=()))
    assert run("status").out.splitlines() == [
        "watcher  shop",
        "process  has not run yet; `watcher run` starts it",
        "source   no DSN is set",
        "journal  x.journal: does not exist yet",
    ]
    killed = ProcessStatus(12, False, "killed", None, "", "")
    now[0] = make(process=killed, source=SourceStatus("db:5432/shop", False, "no answer", None, None), journal=None)
    out = run("status").out
    assert "process  does not run; the last was pid 12, killed" in out
    assert "source   db:5432/shop: no answer" in out
    assert "slot " not in out


def test_a_journal_can_be_found_without_settings(run: Run, folder: Path) -> None:
    done = run("status")
    assert (done.code, "name: is missing" in done.err) == (2, True)
