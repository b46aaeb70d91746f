"""Marking schema changes as seen: audited before it is gone, also through the steering that a command uses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend_watcher.capture.schema import Noticed
from backend_watcher.capture.schema_notes import add_changes, load_changes
from backend_watcher.errors import ConfigError
from backend_watcher.journal import MemoryJournal
from backend_watcher.journal.sqlite import SqliteJournal
from backend_watcher.service.config import load_config
from backend_watcher.service.control import status
from backend_watcher.service.operate import operate
from backend_watcher.service.schema import mark_seen, schema_changes
from backend_watcher.service.steering import SEEN, Request, StandingLoops, steer

NOTICED = [
    Noticed("rewritten", "public.a", "was rewritten", True, "rows differ", "Read them again."),
    Noticed("column_added", "public.b", "column c text was added", False, "it is NULL", "Nothing."),
]


@pytest.fixture
async def journal() -> AsyncIterator[MemoryJournal]:
    journal = MemoryJournal()
    await journal.open()
    await add_changes(journal, NOTICED)
    yield journal
    await journal.close()


async def test_one_and_all(journal: MemoryJournal) -> None:
    assert await mark_seen(journal, 2, "ann", now=lambda: 7.0) == "1 schema change is marked as seen"
    (entry,) = await journal.audits()
    assert (entry.at, entry.actor, entry.subject) == (7.0, "ann", "public.b (2)")
    assert entry.detail == "column_added: column c text was added; it is NULL"
    assert [one.number for one in await load_changes(journal)] == [1]
    with pytest.raises(ConfigError, match="no open schema change 2"):
        await mark_seen(journal, 2, "ann")
    await add_changes(journal, NOTICED)
    assert await mark_seen(journal, None, "ann") == "3 schema changes are marked as seen"
    assert await load_changes(journal) == []
    assert await mark_seen(journal, None, "ann") == "0 schema changes are marked as seen"


async def test_it_is_steered_like_everything_else(journal: MemoryJournal) -> None:
    loops = StandingLoops(journal, [])
    request = Request(operation=SEEN, subscription="", by="ann", reason="loaded again", number=1)
    assert (await steer(journal, loops, request)).said == "1 schema change is marked as seen"
    assert [(one.action, one.subject) for one in await journal.audits()] == [
        ("schema change seen", "public.a (1)"),
        (SEEN, "schema/1"),
    ]
    assert (await steer(journal, loops, request)).faults == ["there is no open schema change 1"]


async def test_a_journal_that_nobody_runs_and_one_of_before(tmp_path: Path) -> None:
    path = tmp_path / "shop.journal"
    config = load_config(
        None, {"WATCHER_NAME": "shop", "WATCHER_JOURNAL__PATH": str(path)}, watcher=None, complete=False
    )
    journal = SqliteJournal(path)
    await journal.open()
    await journal.close()
    # It knows of no schema changes: there are none.
    assert (await status(config)).schema_changes == ()
    assert schema_changes(config) == []
    await journal_with_changes(path)
    assert [one.table for one in (await status(config)).schema_changes] == ["public.a", "public.b"]
    assert await operate(config, None, Request(operation=SEEN, subscription="", by="ann")) == (
        "2 schema changes are marked as seen"
    )
    assert schema_changes(config) == []


async def journal_with_changes(path: Path) -> None:
    journal = SqliteJournal(path)
    await journal.open()
    await add_changes(journal, NOTICED)
    await journal.close()
