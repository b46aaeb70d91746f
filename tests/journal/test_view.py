"""Another process looks at the journal."""

import os
import subprocess
import sys

import pytest

from backend_watcher.errors import JournalBroken
from backend_watcher.events.position import START, Position
from backend_watcher.journal import SqliteJournal, SqliteJournalView
from backend_watcher.testing.chunks import ALL, ids
from backend_watcher.testing.conformance_journal import IDENTITY

LOOK = """
import sys
from backend_watcher.events.position import START
from backend_watcher.journal import SqliteJournalView
with SqliteJournalView(sys.argv[1]) as view:
    changes = [change for block in view.read(START, 1 << 30) for change in block.changes]
    print(len(changes), changes[0].event_id, view.state().blocks, dict(view.cursors()), view.notes())
"""


def look(path):
    done = subprocess.run([sys.executable, "-c", LOOK, path], capture_output=True, text=True, check=True)
    return done.stdout.strip()


SEEN = "6 7000000000000000001:test_slot:0/1100:0 2 {'a': Position(commit_lsn=4352, ordinal=1)} {'n': 't'}"


async def fill(journal, chunk):
    for _ in range(2):
        await journal.append(chunk(3))
    journal.save_cursor("a", Position(0x1100, 1))
    await journal.set_note("n", "t")


async def test_while_the_writer_runs_and_after_it_closed(path, journal, chunk):
    await fill(journal, chunk)
    assert look(path) == SEEN
    await journal.close()
    assert look(path) == SEEN
    journal = SqliteJournal(path)
    await journal.open()
    await journal.close()


async def test_it_says_the_same_as_the_journal(path, journal, chunk):
    await fill(journal, chunk)
    with SqliteJournalView(path) as view:
        assert view.state() == await journal.state()
        assert view.cursors() == await journal.cursors()
        assert view.identity() == IDENTITY
        assert view.notes() == {"n": "t"}
        assert ids(view.read(Position(0x1100, 1), ALL)[0].changes) == [3]
        assert ids(change for block in view.read(START, ALL) for change in block.changes) == [1, 2, 3, 4, 5, 6]


async def test_it_notices_changes(path, journal, chunk):
    with SqliteJournalView(path) as view:
        assert view.changed()
        assert not view.changed()
        await journal.append(chunk(1))
        await journal.flush()
        assert view.changed()
        assert not view.changed()
        assert len(view.read(START, ALL)) == 1
        journal.save_cursor("a", START)
        await journal.flush()
        assert view.changed()


async def test_an_open_view_does_not_keep_the_writer_from_closing(path, journal, chunk):
    with SqliteJournalView(path) as view:
        await fill(journal, chunk)
        await journal.close()
        assert len(view.read(START, ALL)) == 2
        again = SqliteJournal(path)
        await again.open()
        await again.append(chunk(3))
        await again.flush()
        assert len(view.read(START, ALL)) == 3
        await again.close()


async def test_it_sees_that_the_quota_is_reached(path, chunk):
    import asyncio

    journal = SqliteJournal(path, quota_bytes=1)
    await journal.open()
    journal.save_cursor("slow", START)
    one = chunk(2)
    await journal.append(one)
    waiting = asyncio.create_task(journal.append(chunk(2)))
    await asyncio.to_thread(int)
    for _ in range(3):
        await journal.flush()
    with SqliteJournalView(path) as view:
        assert view.state().full
        journal.save_cursor("slow", one.last)
        await waiting
        for _ in range(3):
            await journal.flush()
        assert not view.state().full
    await journal.close()


def test_a_file_that_is_not_there(path):
    with pytest.raises(JournalBroken, match=r"journal\.db"):
        SqliteJournalView(path)
    assert os.listdir(path.parent) == []
