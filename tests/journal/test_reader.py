"""Reading from the file."""

import asyncio
import sqlite3

import pytest

from backend_watcher.errors import JournalBroken
from backend_watcher.events.position import START, Position
from backend_watcher.journal import SqliteJournal
from backend_watcher.journal import reader as reader_module
from backend_watcher.journal.reader import Reader
from backend_watcher.testing.builders import STREAM
from backend_watcher.testing.chunks import ALL, ids
from backend_watcher.testing.conformance_journal import IDENTITY


@pytest.fixture
async def chunks(path, chunk):
    chunks = [chunk(4) for _ in range(5)]
    journal = SqliteJournal(path)
    await journal.open()
    await journal.save_identity(IDENTITY, 0)
    for one in chunks:
        await journal.append(one)
    await journal.close()
    return chunks


@pytest.fixture
def reader(path, chunks):
    reader = Reader(path, {}, lambda: STREAM)
    yield reader
    reader.close()


def spoil(path, statement):
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_limits_and_the_middle_of_a_block(reader, chunks):
    assert [block.last for block in reader.read(START, ALL)] == [one.last for one in chunks]
    assert len(reader.read(START, 1)) == 1
    assert len(reader.read(START, len(chunks[0].payload) + 1)) == 2
    inside = Position(chunks[1].first.commit_lsn, 1)
    assert [ids(block.changes) for block in reader.read(inside, 1)] == [[7, 8]]
    assert reader.read(chunks[-1].last, ALL) == []


def test_readers_that_are_behind_share_what_was_decoded(reader, monkeypatch):
    decoded = []
    decode = reader_module.decode
    monkeypatch.setattr(reader_module, "decode", lambda *given: decoded.append(1) or decode(*given))
    blocks = [reader.read(START, ALL) for _ in range(10)]
    assert len(decoded) == 5
    assert blocks[9][4] is blocks[0][4]


def test_what_is_kept_for_others_is_bounded(reader, chunks, monkeypatch):
    monkeypatch.setattr(reader_module, "RECENT_BYTES", 1)
    reader.read(START, ALL)
    assert len(reader._recent) == 1
    assert [block.last for block in reader.read(START, ALL)] == [one.last for one in chunks]


def test_a_flipped_byte_names_the_block(path, chunks):
    changed = "CAST(substr(payload, 1, 90) || x'ff' || substr(payload, 92) AS BLOB)"
    spoil(path, f"UPDATE block SET payload = {changed} WHERE number = 2")
    reader = Reader(path, {}, lambda: STREAM)
    assert len(reader.read(START, 1)) == 1
    where = f"block {chunks[1].first} to {chunks[1].last}"
    with pytest.raises(JournalBroken, match=rf"journal\.db: {where}"):
        reader.read(START, ALL)
    with pytest.raises(JournalBroken):
        reader.read(chunks[0].last, 1)
    assert len(reader.read(chunks[1].last, ALL)) == 3
    reader.close()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM shape", "table version .* is missing"),
        ("UPDATE shape SET dump = x'7b'", "cannot be read"),
        ("UPDATE shape SET dump = replace(CAST(dump AS TEXT), 'stock', 'stick')", "is not what was stored"),
        ("UPDATE block SET last_ordinal = 7 WHERE number = 1", "checksum"),
        ("UPDATE block SET captured_at = 0", "checksum"),
    ],
)
def test_other_damage(path, chunks, statement, message):
    spoil(path, statement)
    reader = Reader(path, {}, lambda: STREAM)
    with pytest.raises(JournalBroken, match=message):
        reader.read(START, ALL)
    reader.close()


def test_damaged_pages_are_an_error_of_ours(path, chunk, chunks):
    data = bytearray(path.read_bytes())
    for at in range(8192 + 100, len(data)):
        data[at] ^= 0x55
    path.write_bytes(data)
    with pytest.raises(JournalBroken, match=r"journal\.db"):
        Reader(path, {}, lambda: STREAM).read(START, ALL)


async def test_reading_the_file_does_not_hold_up_the_loop(path, chunks, monkeypatch):
    journal = SqliteJournal(path)
    await journal.open()
    loop, reached = asyncio.get_running_loop(), asyncio.Event()
    going_on = asyncio.Event()
    decode = reader_module.decode

    def slow(*given):
        loop.call_soon_threadsafe(reached.set)
        # Waits for the loop: this ends only if the loop is free while a block is decoded.
        asyncio.run_coroutine_threadsafe(going_on.wait(), loop).result(20)
        return decode(*given)

    monkeypatch.setattr(reader_module, "decode", slow)
    read = asyncio.create_task(journal.read(START, 1))
    await asyncio.wait_for(reached.wait(), 20)
    going_on.set()
    assert len(await asyncio.wait_for(read, 20)) == 1
    await journal.close()


@pytest.mark.parametrize("after", [START, "a block"])
def test_a_block_that_an_index_hides_is_missed(path, chunks, reader, after):
    after = chunks[0].last if after != START else START
    spoil(path, "DELETE FROM block WHERE number = 3")
    with pytest.raises(JournalBroken, match="block 2 is followed by block 4"):
        reader.read(after, ALL)


def test_a_block_hidden_behind_the_last_one_read_is_missed(path, chunks, reader):
    spoil(path, "DELETE FROM block WHERE number = 3")
    with pytest.raises(JournalBroken, match="block 2 is followed by block 4"):
        reader.read(chunks[1].last, 1)


def test_the_oldest_blocks_may_be_gone(path, chunks, reader):
    spoil(path, "DELETE FROM block WHERE number < 3")
    assert len(reader.read(START, ALL)) == 3
    assert len(reader.read(chunks[0].last, ALL)) == 3
