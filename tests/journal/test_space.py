"""The space on disk is given back."""

import asyncio

import pytest

from backend_watcher.contracts import HeldChange
from backend_watcher.errors import JournalBroken
from backend_watcher.events.position import START
from backend_watcher.journal import SqliteJournal, SqliteJournalView, space
from backend_watcher.testing.builders import change
from backend_watcher.testing.chunks import ids, read_all


def size_of(path):
    return path.stat().st_size


async def fill(journal, chunk, megabytes):
    for _ in range(megabytes * 4):
        await journal.append(chunk(25, name="x" * 10_000))
    await journal.flush()


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(space, "CHECKPOINT_BYTES", 1 << 20)
    monkeypatch.setattr(space, "SHRINK_BYTES", 1 << 20)


async def test_the_wal_stays_small_while_it_is_written(path, chunk, small):
    journal = SqliteJournal(path)
    await journal.open()
    largest = 0
    for _ in range(20):
        await fill(journal, chunk, 1)
        largest = max(largest, size_of(path.with_name("journal.db-wal")))
    assert largest < 8 << 20
    assert size_of(path) > 10 << 20
    await journal.close()
    assert not path.with_name("journal.db-wal").exists()
    assert size_of(path) > 19 << 20


async def test_the_wal_stays_small_while_changes_are_held_and_let_go(path, small):
    journal = SqliteJournal(path)
    await journal.open()
    row = change(new={"id": 1, "name": "x" * 500}, ordinal=1)
    largest = 0
    for key in range(20):
        journal.hold_changes("a", [HeldChange(key, number, row) for number in range(key, 10_000, 20)])
        await journal.flush()
        largest = max(largest, size_of(path.with_name("journal.db-wal")))
    for key in range(20):
        # One of each page: much is written for little.
        journal.let_go("a", range(key, 10_000, 20))
        await journal.flush()
        largest = max(largest, size_of(path.with_name("journal.db-wal")))
    await journal.close()
    assert largest < 4 << 20


async def test_a_file_that_was_emptied_is_filled_again_and_does_not_grow(path, chunk, small):
    journal = SqliteJournal(path, retain_bytes=2 << 20)
    await journal.open()
    await fill(journal, chunk, 4)
    for _ in range(10):
        await fill(journal, chunk, 2)
    await journal.close()
    assert size_of(path) < 12 << 20


async def test_a_file_that_is_mostly_free_shrinks(path, chunk, small):
    journal = SqliteJournal(path, retain_bytes=1 << 20)
    await journal.open()
    journal.save_cursor("slow", START)
    await fill(journal, chunk, 20)
    await journal.close()
    assert size_of(path) > 19 << 20
    journal = SqliteJournal(path, retain_bytes=1 << 20)
    await journal.open()
    journal.forget_cursor("slow")
    for _ in range(100):
        await journal.flush()
    assert (await journal.state()).size_bytes <= 1 << 20
    left = ids(await read_all(journal))
    assert left == list(range(left[0], 2001))
    await journal.close()
    assert size_of(path) < 5 << 20


async def test_a_reader_that_never_ends_does_not_stop_the_writer(path, chunk, small, monkeypatch):
    monkeypatch.setattr(space, "WAL_BYTES", 4 << 20)
    journal = SqliteJournal(path)
    await journal.open()
    await fill(journal, chunk, 1)
    journal._open.writer._connection.execute("PRAGMA busy_timeout=10")
    with SqliteJournalView(path) as view, view._reader.snapshot() as connection:
        connection.execute("SELECT count(*) FROM block").fetchone()
        await asyncio.wait_for(fill(journal, chunk, 6), 60)
    assert len(await read_all(journal)) == 700
    await journal.close()


async def test_a_checkpoint_that_fails_breaks_the_journal(path, chunk, small, monkeypatch):
    journal = SqliteJournal(path)
    await journal.open()

    def fail(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(space.Space, "_checkpoint", fail)
    with pytest.raises(JournalBroken, match="No space left"):
        await fill(journal, chunk, 40)
    with pytest.raises(JournalBroken):
        await journal.close()
