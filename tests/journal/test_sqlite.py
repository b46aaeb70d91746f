"""The journal in a file: what it does beyond the contract."""

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest

from backend_watcher.errors import JournalBroken, JournalError, JournalLocked
from backend_watcher.events.position import START, Position
from backend_watcher.journal import SqliteJournal
from backend_watcher.journal import tail as tail_module
from backend_watcher.testing.chunks import ALL, ids, read_all


async def test_a_new_folder_is_ours_alone(tmp_path):
    umask = os.umask(0)
    try:
        journal = SqliteJournal(tmp_path / "new" / "journal.db")
        await journal.open()
    finally:
        os.umask(umask)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "new").iterdir()} == {0o600}
    await journal.close()


async def test_a_second_journal_on_the_file_is_refused_until_the_first_lets_go(path, journal):
    second = SqliteJournal(path)
    with pytest.raises(JournalLocked, match=str(os.getpid())):
        await second.open()
    await second.close()
    await journal.close()
    await second.open()
    await second.close()


async def test_a_refused_open_leaves_nothing_locked(path):
    path.write_text("something else" * 100)
    for _ in range(2):
        with pytest.raises(JournalBroken, match="not a database"):
            await SqliteJournal(path).open()


async def test_a_path_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalBroken, match="cannot be made"):
        await SqliteJournal(tmp_path / "file" / "journal.db").open()


async def test_closed_it_answers_with_an_error_of_ours(path, chunk):
    journal = SqliteJournal(path)
    calls = (
        lambda: journal.append(chunk()),
        lambda: journal.advance(1),
        lambda: journal.read(START, 1),
        journal.flush,
        journal.cursors,
        journal.identity,
        journal.state,
        lambda: journal.get_note("a"),
    )
    for call in calls:
        with pytest.raises(JournalError, match="is not open"):
            await call()
    for call in (lambda: journal.save_cursor("a", START), lambda: journal.forget_cursor("a")):
        with pytest.raises(JournalError, match="is not open"):
            call()
    with pytest.raises(JournalError, match="is not open"):
        assert journal.durable_lsn


async def test_opening_twice_is_opening_once(journal, chunk):
    await journal.append(chunk())
    await journal.open()
    await journal.flush()
    assert ids(await read_all(journal)) == [1]


async def test_it_may_be_opened_again(journal, chunk):
    await journal.append(chunk(2))
    await journal.close()
    assert journal.last_position == Position(chunk.lsn, 1)
    await journal.open()
    await journal.append(chunk(2))
    await journal.flush()
    assert ids(await read_all(journal)) == [1, 2, 3, 4]


async def test_a_reader_at_the_tail_needs_no_disk(journal, chunk, monkeypatch):
    for _ in range(10):
        await journal.append(chunk(3))
    await journal.flush()

    def refuse(*given):
        raise AssertionError("read from the file")

    monkeypatch.setattr(journal._open.reader, "read", refuse)
    assert len(await read_all(journal)) == 30
    assert len(await read_all(journal, Position(chunk.lsn, 0))) == 2


async def test_a_hundred_readers_decode_once(path, chunk, monkeypatch):
    decoded = []
    decode = tail_module.decode
    monkeypatch.setattr(tail_module, "decode", lambda *given: decoded.append(1) or decode(*given))
    journal = SqliteJournal(path)
    await journal.open()
    for _ in range(10):
        await journal.append(chunk(3))
    await journal.flush()
    for changes in await asyncio.gather(*(read_all(journal) for _ in range(100))):
        assert len(changes) == 30
    assert len(decoded) == 10
    await journal.close()


async def test_a_reader_behind_the_tail_crosses_into_it_without_a_gap(path, chunk):
    journal = SqliteJournal(path, tail_bytes=20_000)
    await journal.open()
    for _ in range(100):
        await journal.append(chunk(3))
        await journal.flush()
    assert journal._open.tail.read(START, ALL) is None
    for limit_bytes in (1, 1000, ALL):
        assert ids(await read_all(journal, limit_bytes=limit_bytes)) == list(range(1, 301))
    await journal.close()


async def test_a_full_queue_keeps_the_loop_running(path, chunk):
    journal = SqliteJournal(path, queue_bytes=1)
    await journal.open()
    await asyncio.wait_for(asyncio.gather(*(journal.append(one) for one in [chunk() for _ in range(30)])), 60)
    await journal.flush()
    assert ids(await read_all(journal)) == list(range(1, 31))
    await journal.close()


async def test_whether_another_process_has_it_can_be_asked_without_making_anything(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "folder" / "journal.db")
    journal.refuse_if_locked()
    assert not (tmp_path / "folder").exists()
    await journal.open()
    with pytest.raises(JournalLocked):
        SqliteJournal(journal.path).refuse_if_locked()
    await journal.close()
    journal.refuse_if_locked()


@pytest.mark.parametrize("by", [-7, 7])
async def test_a_newest_block_that_is_somewhere_else_is_found_at_once(path, chunk, by):
    """Before where a reader is, it would never be read, and nobody would miss it until something follows."""
    journal = SqliteJournal(path)
    await journal.open()
    for _ in range(3):
        await journal.append(chunk(2))
    await journal.close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE block SET last_lsn = last_lsn + ? WHERE number = (SELECT max(number) FROM block)", (by,))
    connection.commit()
    connection.close()
    with pytest.raises(JournalBroken, match="the newest block ends at"):
        await SqliteJournal(path).open()
