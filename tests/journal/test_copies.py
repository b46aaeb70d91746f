"""A copy of a journal that is being written, and one put back."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from backend_watcher.errors import JournalBroken, JournalError, JournalLocked
from backend_watcher.events.position import START, Position
from backend_watcher.journal import SqliteJournal, SqliteJournalView
from backend_watcher.journal.copies import copy_journal, put_back
from backend_watcher.testing.conformance_journal import IDENTITY


async def fill(journal, chunk, times=2):
    for _ in range(times):
        await journal.append(chunk(3))
    journal.save_cursor("a", Position(0x1100, 1))
    await journal.set_note("n", "t")


def events(path):
    with SqliteJournalView(path) as view:
        return [change.event_id for block in view.read(START, 1 << 30) for change in block.changes]


async def test_it_is_whole_although_somebody_writes(path: Path, journal, chunk) -> None:
    await fill(journal, chunk)
    target = path.with_name("copy")
    copied = await asyncio.to_thread(copy_journal, path, target)
    await fill(journal, chunk)
    assert copied.identity == IDENTITY
    assert copied.state.blocks == 2
    assert len(events(target)) == 6
    assert events(path)[:6] == events(target)
    with SqliteJournalView(target) as view:
        assert dict(view.cursors()) == {"a": Position(0x1100, 1)}
        assert view.notes() == {"n": "t"}
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert {one.name for one in path.parent.iterdir() if one.name.startswith("copy")} == {"copy"}


async def test_nothing_is_overwritten(path: Path, journal, chunk) -> None:
    await fill(journal, chunk)
    target = path.with_name("copy")
    target.write_text("a letter")
    with pytest.raises(JournalError, match="is there already"):
        copy_journal(path, target)
    assert target.read_text() == "a letter"


async def test_a_copy_is_a_journal_to_go_on_with(path: Path, journal, chunk) -> None:
    await fill(journal, chunk)
    copy_journal(path, target := path.with_name("copy"))
    await fill(journal, chunk)
    await journal.close()
    before = events(path)
    copied, aside = put_back(target, path)
    assert copied.state.blocks == 2
    assert aside == path.with_name(f"{path.name}.replaced-1")
    assert events(aside) == before
    assert events(path) == events(target) == before[:6]
    again = SqliteJournal(path)
    await again.open()
    try:
        found = [change for block in await again.read(START, 1 << 30) for change in block.changes]
        assert [change.event_id for change in found] == before[:6]
        assert dict(await again.cursors()) == {"a": Position(0x1100, 1)}
    finally:
        await again.close()


async def test_it_does_not_meet_the_wal_of_the_one_before(path: Path, journal, chunk, tmp_path: Path) -> None:
    """A killed writer leaves a WAL; what is in it must not come into the file that is put back."""
    await fill(journal, chunk)
    copy_journal(path, target := path.with_name("copy"))
    await fill(journal, chunk, 5)
    killed = tmp_path / "killed" / path.name
    killed.parent.mkdir()
    for end in ("", "-wal"):
        (killed.with_name(path.name + end)).write_bytes(path.with_name(path.name + end).read_bytes())
    await journal.close()
    assert killed.with_name(path.name + "-wal").stat().st_size > 0
    before = events(killed)
    assert len(before) == 21
    _, aside = put_back(target, killed)
    assert len(events(killed)) == 6
    assert aside is not None
    assert events(aside) == before


async def test_not_while_somebody_has_the_journal(path: Path, journal, chunk) -> None:
    await fill(journal, chunk)
    copy_journal(path, target := path.with_name("copy"))
    with pytest.raises(JournalLocked):
        put_back(target, path)
    assert len(events(path)) == 6


async def test_where_nothing_was_there_is_nothing_aside(path: Path, journal, chunk, tmp_path: Path) -> None:
    await fill(journal, chunk)
    copy_journal(path, target := path.with_name("copy"))
    _, aside = put_back(target, tmp_path / "new" / "place.journal")
    assert aside is None
    assert len(events(tmp_path / "new" / "place.journal")) == 6


@pytest.mark.parametrize("damage", ["cut", "other", "empty"])
async def test_what_is_no_whole_journal_is_not_put_back(path: Path, journal, chunk, damage: str) -> None:
    await fill(journal, chunk)
    copy_journal(path, target := path.with_name("copy"))
    await journal.close()
    data = target.read_bytes()
    target.write_bytes({"cut": data[: len(data) // 2], "other": os.urandom(9000), "empty": b""}[damage])
    before = events(path)
    with pytest.raises(JournalBroken):
        put_back(target, path)
    assert events(path) == before
    assert not [one for one in path.parent.iterdir() if ".part" in one.name or "replaced" in one.name]


async def test_each_one_before_has_a_name_of_its_own(path: Path, journal, chunk) -> None:
    await fill(journal, chunk)
    copy_journal(path, target := path.with_name("copy"))
    await journal.close()
    names = [put_back(target, path)[1] for _ in range(3)]
    assert [name and name.name for name in names] == [f"{path.name}.replaced-{n}" for n in (1, 2, 3)]
