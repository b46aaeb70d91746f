"""The journal in memory: what it can do beyond the contract."""

import asyncio

import pytest

from backend_watcher.errors import JournalBroken
from backend_watcher.events.position import START
from backend_watcher.journal import MemoryJournal
from backend_watcher.testing.chunks import ids, read_all


@pytest.fixture
async def memory():
    journal = MemoryJournal()
    await journal.open()
    return journal


async def test_everything_is_durable_at_once(memory, chunk):
    await memory.append(chunk(2))
    assert memory.durable_lsn == chunk.lsn + 8
    assert ids(await read_all(memory)) == [1, 2]


async def test_what_is_held_can_be_read_and_is_not_durable(memory, chunk):
    heard, news = [], []
    memory.listen(lambda: heard.append(memory.durable_lsn))
    memory.listen_news(lambda: news.append(memory.durable_lsn))
    memory.hold()
    await memory.append(chunk(2))
    memory.save_cursor("a", START)
    flushed = asyncio.create_task(memory.flush())
    await asyncio.to_thread(int)
    assert (memory.durable_lsn, memory.last_position, heard, flushed.done()) == (0, START, [], False)
    assert news == [0]
    assert ids(await read_all(memory)) == [1, 2]
    memory.release()
    await asyncio.wait_for(flushed, 20)
    assert heard == [chunk.lsn + 8]
    assert ids(await read_all(memory)) == [1, 2]
    await memory.append(chunk(1))
    assert ids(await read_all(memory)) == [1, 2, 3]


async def test_a_listener_may_note_more(memory, chunk):
    memory.listen(lambda: memory.save_cursor("a", memory.last_position))
    for _ in range(3):
        await memory.append(chunk(1))
    await memory.close()
    await memory.open()
    assert await memory.cursors() == {"a": memory.last_position}


async def test_failing(memory, chunk):
    await memory.append(chunk(2))
    memory.hold()
    await memory.append(chunk(2))
    memory.fail("no disk")
    memory.release()
    with pytest.raises(JournalBroken, match="no disk"):
        await memory.append(chunk(2))
    assert ids(await read_all(memory)) == [1, 2]
    with pytest.raises(JournalBroken, match="no disk"):
        await memory.close()
    await memory.open()
    assert ids(await read_all(memory)) == [1, 2]
