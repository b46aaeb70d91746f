"""Giving up a transaction that PostgreSQL cannot send."""

from __future__ import annotations

import pytest

from backend_watcher.capture.undecodable import NOTE, Undecodable
from backend_watcher.errors import ConfigError
from backend_watcher.journal.memory import MemoryJournal
from backend_watcher.service.skip import skip_undecodable
from backend_watcher.service.steering import SKIP, Request, StandingLoops, steer

COMMIT = 0x400


async def journal_stuck(commit_lsn: int | None = COMMIT) -> MemoryJournal:
    journal = MemoryJournal()
    await journal.open()
    await journal.advance(0x100)
    await journal.set_note(NOTE, Undecodable(0x200, commit_lsn, "no").to_note())
    return journal


async def test_the_journal_ends_behind_it_and_it_is_in_the_audit() -> None:
    journal = await journal_stuck()
    request = Request(operation=SKIP, subscription="", by="root", reason="a photo", to=(COMMIT, 0))
    answer = await steer(journal, StandingLoops(journal, []), request)
    assert answer.faults == []
    assert "commits at 0/400 is skipped from its change at 0/200 on" in answer.said
    assert journal.durable_lsn == COMMIT + 1
    (entry,) = await journal.audits()
    assert (entry.actor, entry.action, entry.subject) == ("root", "skip", "source")
    assert entry.detail.startswith("a photo the transaction that commits at 0/400")
    with pytest.raises(ConfigError, match="stuck at no transaction"):
        await skip_undecodable(journal, COMMIT)


async def test_nothing_but_what_it_is_stuck_at_can_be_skipped() -> None:
    journal = await journal_stuck()
    with pytest.raises(ConfigError, match="commits at 0/400"):
        await skip_undecodable(journal, COMMIT + 8)
    request = Request(operation=SKIP, subscription="", by="root", to=(COMMIT, 0))
    assert (await steer(journal, StandingLoops(journal, []), request)).faults == ["reason: is missing"]
    await journal.advance(COMMIT + 100)
    with pytest.raises(ConfigError, match="stuck at no transaction"):
        await skip_undecodable(journal, COMMIT)


async def test_one_whose_end_is_not_known_cannot_be_skipped() -> None:
    with pytest.raises(ConfigError, match="stuck at no transaction"):
        await skip_undecodable(await journal_stuck(None), COMMIT)
