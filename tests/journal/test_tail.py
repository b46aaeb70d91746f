"""The newest blocks in memory."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend_watcher.events.position import START, Position
from backend_watcher.journal import tail as tail_module
from backend_watcher.journal.block import decode, seal
from backend_watcher.journal.tail import Tail, weigh
from backend_watcher.testing.builders import STREAM
from backend_watcher.testing.chunks import ALL, ids


@pytest.fixture
def decoded(monkeypatch):
    """Count what is decoded."""
    seen = []

    def count(stored, tables, stream):
        seen.append(stored.last)
        return decode(stored, tables, stream)

    monkeypatch.setattr(tail_module, "decode", count)
    return seen


def make(chunks, limit_bytes=None, floor=START):
    tables = {table.version: table for one in chunks for table in one.tables}
    tail = Tail(floor, tables, lambda: STREAM, limit_bytes)
    tail.extend([seal(one, 1.0) for one in chunks])
    return tail


def test_a_block_is_decoded_once_however_many_read_it(chunk, decoded):
    tail = make([chunk(2), chunk(2)])
    blocks = [tail.read(START, ALL) for _ in range(100)]
    assert len(decoded) == 2
    assert all(one[0] is blocks[0][0] for one in blocks)


def test_nothing_is_decoded_that_nobody_reads(chunk, decoded):
    chunks = [chunk(2) for _ in range(4)]
    tail = make(chunks)
    assert decoded == []
    tail.read(chunks[2].last, ALL)
    assert decoded == [chunks[3].last]


def test_the_oldest_go_when_it_grows_and_the_newest_always_stays(chunk):
    chunks = [chunk(2) for _ in range(40)]
    weight = weigh(len(chunks[-1].payload), 2)
    tail = make(chunks, limit_bytes=8 * weight)
    assert tail.read(START, ALL) is None
    held = list(tail.oldest())
    assert 6 <= len(held) <= 8
    floor = chunks[-len(held) - 1].last
    assert tail.read(Position(floor.commit_lsn, floor.ordinal - 1), ALL) is None
    assert [block.last for block in tail.read(floor, ALL)] == [one.last for one in chunks[-len(held) :]]
    tiny = make(chunks[:3], limit_bytes=1)
    assert [stored.last for stored in tiny.oldest()] == [chunks[2].last]


def test_before_the_floor_it_knows_nothing(chunk):
    one = chunk(2)
    tail = make([one], floor=Position(0x1000, 5))
    assert tail.read(START, ALL) is None
    assert tail.read(Position(0x1000, 4), ALL) is None
    assert ids(tail.read(Position(0x1000, 5), ALL)[0].changes) == [1, 2]


def test_limits_and_the_middle_of_a_block(chunk):
    chunks = [chunk(4) for _ in range(3)]
    tail = make(chunks)
    assert len(tail.read(START, 1)) == 1
    assert len(tail.read(START, 0)) == 1
    assert len(tail.read(START, len(chunks[0].payload) + 1)) == 2
    inside = Position(chunks[0].first.commit_lsn, 2)
    assert [ids(block.changes) for block in tail.read(inside, ALL)] == [[4], [5, 6, 7, 8], [9, 10, 11, 12]]
    assert tail.read(chunks[-1].last, ALL) == []
    assert tail.read(Position(1 << 40, 0), ALL) == []


def test_what_retention_forgot_is_gone_here_too(chunk):
    chunks = [chunk(2) for _ in range(3)]
    tail = make(chunks)
    tail.forget(chunks[1].last)
    assert [block.last for block in tail.read(START, ALL)] == [chunks[2].last]
    tail.forget(Position(1 << 40, 0))
    assert tail.read(START, ALL) == []


def test_two_threads_at_once_decode_once(chunk, monkeypatch):
    seen, both = [], threading.Barrier(2)

    def slow(stored, tables, stream):
        seen.append(stored.last)
        # If the other thread came in here too, they would meet; it waits outside, so nobody comes.
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.2)
        return decode(stored, tables, stream)

    monkeypatch.setattr(tail_module, "decode", slow)
    tail = make([chunk(2)])
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: tail.read(START, ALL), range(2))
    assert len(seen) == 1
    assert one[0] is other[0]
