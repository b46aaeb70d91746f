"""The thread that writes: groups, kills, a full disk."""

import asyncio
import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from backend_watcher import probes
from backend_watcher.errors import JournalBroken
from backend_watcher.events.position import Position
from backend_watcher.journal import SqliteJournal, SqliteJournalView
from backend_watcher.testing.chunks import ids, read_all

PROGRAMS = Path(__file__).with_name("programs.py")


def program(what, path, **environment):
    return subprocess.Popen(
        [sys.executable, PROGRAMS, what, path],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


async def check_nothing_is_lost(path, reported):
    """Compare what the journal holds with the lines `durable_lsn last_position` that it reported."""
    durable_lsn, last = reported[-1].split()
    journal = SqliteJournal(path)
    await journal.open()
    assert journal.durable_lsn >= int(durable_lsn)
    assert journal.last_position >= Position.parse(last)
    changes = await read_all(journal)
    assert changes[-1].position == journal.last_position
    assert ids(changes) == list(range(1, len(changes) + 1))
    assert (await journal.state()).blocks * 3 == len(changes)
    assert all(cursor <= journal.last_position for cursor in (await journal.cursors()).values())
    await journal.close()


@pytest.mark.parametrize("lines", [1, 7, 40])
async def test_a_killed_writer_lost_nothing_it_reported(path, lines):
    with program("write", path) as writer:
        reported = list(itertools.islice(writer.stdout, lines))
        writer.kill()
        reported += [line for line in writer.stdout if line.endswith("\n")]
    with SqliteJournalView(path) as view:
        assert view.state().durable_lsn >= int(reported[-1].split()[0])
    await check_nothing_is_lost(path, reported)


@pytest.mark.parametrize("place", ["journal.before_commit", "journal.after_commit"])
async def test_killed_around_a_commit_it_lost_nothing_it_reported(path, place):
    for nth in (3, 5):
        with program("write", path.with_name(f"{nth}.db"), WATCHER_PROBES=f"{place}=kill@{nth}") as writer:
            reported = list(writer.stdout)
        assert writer.returncode == -9
        assert len(reported) >= nth - 2
        await check_nothing_is_lost(path.with_name(f"{nth}.db"), reported)


async def test_a_full_disk_breaks_the_journal_and_loses_nothing_it_reported(path):
    with program("starve", path) as writer:
        *reported, broken, refused, closed = list(writer.stdout)
    assert writer.returncode == 0
    assert len(reported) > 3
    assert "journal.db could not be written" in broken
    assert "Free space" in broken
    assert refused == "refused 4 True 0\n"
    assert closed == "closed\n"
    journal = SqliteJournal(path)
    await journal.open()
    assert journal.durable_lsn >= int(reported[-1].split()[0])
    changes = await read_all(journal)
    assert ids(changes) == list(range(1, len(changes) + 1))
    assert len(changes) == (await journal.state()).blocks * 20
    await journal.close()


async def test_while_one_group_is_written_the_next_one_gathers(journal, chunk):
    commits, held, going_on = [], threading.Event(), threading.Event()

    def hold():
        commits.append(1)
        held.set()
        going_on.wait(20)

    probes.arm("journal.before_commit", hold)
    await journal.append(chunk())
    await asyncio.to_thread(held.wait, 20)
    for _ in range(50):
        await journal.append(chunk())
    assert journal.durable_lsn == 0
    assert len(await read_all(journal)) == 51
    going_on.set()
    await journal.flush()
    assert len(commits) == 2
    assert len(await read_all(journal)) == 51


async def test_a_cursor_is_not_durable_before_what_it_has_passed(journal, path, chunk):
    held, going_on = threading.Event(), threading.Event()

    def hold():
        held.set()
        going_on.wait(20)

    probes.arm("journal.before_commit", hold)
    news = []
    journal.listen_news(lambda: news.append(journal.durable_lsn))
    first, second = chunk(), chunk()
    await journal.append(first)
    await asyncio.to_thread(held.wait, 20)
    await journal.append(second)
    assert news == [0, 0]
    # Both were read and settled while neither is on the disk.
    journal.save_cursor("a", second.last)
    with SqliteJournalView(path) as view:
        assert (view.cursors(), view.state().last) == ({}, None)
    going_on.set()
    await journal.flush()
    with SqliteJournalView(path) as view:
        assert (view.cursors(), view.state().last) == ({"a": second.last}, second.last)


async def test_nothing_is_said_before_the_commit_and_all_after_it(journal, chunk):
    seen = []
    probes.arm("journal.before_commit", lambda: seen.append(("before", journal.durable_lsn)))
    journal.listen(lambda: seen.append(("heard", journal.durable_lsn)))
    await journal.append(chunk())
    await journal.flush()
    assert seen[:2] == [("before", 0), ("heard", chunk.lsn + 8)]


@pytest.mark.parametrize("place", ["journal.before_commit", "journal.after_commit"])
async def test_a_write_that_fails_is_the_last(path, chunk, place, caplog):
    journal = SqliteJournal(path)
    await journal.open()
    first = chunk()
    await journal.append(first)
    await journal.flush()
    heard = []
    journal.listen(lambda: heard.append(1))

    def fail():
        raise OSError(5, "Input/output error")

    probes.arm(place, fail)
    await journal.append(chunk())
    with pytest.raises(JournalBroken, match=r"journal\.db could not be written: .*Input/output error") as caught:
        await journal.flush()
    assert "start again" in caught.value.remedy
    probes.disarm()
    for _ in range(2):
        with pytest.raises(JournalBroken):
            await journal.append(chunk())
    with pytest.raises(JournalBroken):
        journal.save_cursor("a", first.last)
    assert (journal.durable_lsn, journal.last_position, heard) == (first.commit_end_lsn, first.last, [])
    assert ids(await read_all(journal)) == [1]
    assert "nothing more is accepted" in caplog.text
    with pytest.raises(JournalBroken):
        await journal.close()
    await journal.close()
    again = SqliteJournal(path)
    await again.open()
    # After the commit it is there, although nobody could be told; before it is not.
    assert ids(await read_all(again)) == ([1] if place == "journal.before_commit" else [1, 2])
    await again.close()


async def test_a_group_that_changes_nothing_costs_no_fsync(journal, chunk):
    await journal.append(chunk())
    await journal.flush()
    commits = []
    probes.arm("journal.before_commit", lambda: commits.append(1))
    for _ in range(5):
        await journal.flush()
        await journal.advance(3)
    await journal.flush()
    assert commits == []


async def test_a_cursor_is_written_soon_without_anything_else(path, journal):
    loop, heard = asyncio.get_running_loop(), asyncio.Event()
    journal.listen(lambda: loop.call_soon_threadsafe(heard.set))
    begun = loop.time()
    journal.save_cursor("a", Position(7, 7))
    await asyncio.wait_for(heard.wait(), 20)
    with SqliteJournalView(path) as view:
        assert view.cursors() == {"a": Position(7, 7)}
    assert loop.time() - begun < 5


async def test_what_is_too_old_for_one_group_goes_over_several(path, chunk, monkeypatch):
    monkeypatch.setattr("backend_watcher.journal.writer.TRIM_BLOCKS", 2)
    time = [0.0]
    journal = SqliteJournal(path, retain_seconds=10, now=lambda: time[0])
    await journal.open()
    for _ in range(20):
        await journal.append(chunk())
    await journal.flush()
    loop, empty = asyncio.get_running_loop(), asyncio.Event()

    def listener():
        if journal._standing().blocks == 0:
            loop.call_soon_threadsafe(empty.set)

    journal.listen(listener)
    time[0] = 100.0
    await journal.flush()
    # Nobody asks again: the writer goes on by itself.
    await asyncio.wait_for(empty.wait(), 20)
    assert await read_all(journal) == []
    await journal.close()


def allow_pages(journal, pages):
    """A file that may not grow says the same as a full disk: SQLITE_FULL."""
    return journal._held().writer._connection.execute(f"PRAGMA max_page_count={pages}").fetchone()[0]


async def full(journal):
    for _ in range(3000):
        if (await journal.state()).full:
            return
        await asyncio.to_thread(threading.Event().wait, 0.01)
    raise AssertionError("the disk is not full")


async def test_a_full_disk_is_waited_for(path, journal, chunk, monkeypatch):
    monkeypatch.setattr("backend_watcher.journal.writer.FULL_SECONDS", 0.05)
    await journal.append(chunk())
    await journal.flush()
    durable, last = journal.durable_lsn, journal.last_position
    allow_pages(journal, 1)
    await journal.append(chunk(20, name="x" * 10_000))
    journal.save_cursor("a", Position(7, 7))
    flushed = asyncio.create_task(journal.flush())
    await full(journal)
    assert (journal.durable_lsn, journal.last_position) == (durable, last)
    assert not flushed.done()
    # It can be read all the same, as everything that is not durable yet.
    assert len(await read_all(journal)) == 21
    allow_pages(journal, 1 << 30)
    await asyncio.wait_for(flushed, 20)
    assert journal.durable_lsn > durable
    assert len(await read_all(journal)) == 21
    await journal.flush()
    assert not (await journal.state()).full
    await journal.close()
    with SqliteJournalView(path) as view:
        assert view.state().durable_lsn > durable
        assert view.cursors() == {"a": Position(7, 7)}


async def test_who_stops_does_not_wait_for_the_disk(path, chunk):
    journal = SqliteJournal(path)
    await journal.open()
    allow_pages(journal, 1)
    await journal.append(chunk(20, name="x" * 10_000))
    await full(journal)
    with pytest.raises(JournalBroken, match="full"):
        await asyncio.wait_for(journal.close(), 20)
    journal = SqliteJournal(path)
    await journal.open()
    assert await read_all(journal) == []
    await journal.close()


async def test_who_lost_the_lock_writes_nothing_more(path, journal, chunk):
    await journal.append(chunk())
    await journal.flush()
    lock = path.with_name(path.name + ".lock")
    lock.unlink()
    second = SqliteJournal(path)
    await second.open()
    await second.set_note("owner", "second")
    await journal.append(chunk())
    with pytest.raises(JournalBroken, match="replaced") as caught:
        await journal.flush()
    assert "one instance" in caught.value.remedy
    assert second.durable_lsn == journal.durable_lsn
    with pytest.raises(JournalBroken):
        await journal.close()
    await second.close()
    await journal.open()
    assert len(await read_all(journal)) == 1
    assert await journal.get_note("owner") == "second"
