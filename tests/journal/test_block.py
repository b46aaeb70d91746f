"""The stored form: what comes out is what went in, or an error that names the block."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.contracts import Identity
from backend_watcher.errors import JournalBroken, WrongCluster
from backend_watcher.events.position import Position
from backend_watcher.journal.block import (
    UNBOUND,
    check,
    cut,
    decode,
    pack_versions,
    refuse_other_cluster,
    seal,
    stream_of,
    unpack_versions,
)
from backend_watcher.testing.builders import STREAM
from backend_watcher.testing.chunks import ChunkMaker, ids


def tables_of(chunk):
    return {table.version: table for table in chunk.tables}


def test_a_sealed_chunk_decodes_to_its_changes(chunk):
    one = chunk(3)
    stored = seal(one, 12.5)
    check(stored, "here")
    block = decode(stored, tables_of(one), STREAM)
    assert (block.first, block.last, block.size_bytes) == (one.first, one.last, len(one.payload))
    assert ids(block.changes) == [1, 2, 3]
    assert block.tables == {"public.products"}
    assert stored.captured_at == 12.5


@given(st.data())
def test_any_flipped_bit_of_the_payload_is_found(data):
    stored = seal(ChunkMaker()(2), 1.0)
    bit = data.draw(st.integers(0, len(stored.payload) * 8 - 1))
    payload = bytearray(stored.payload)
    payload[bit // 8] ^= 1 << bit % 8
    with pytest.raises(JournalBroken, match=r"there: block 0/1100:0 to 0/1100:1 does not match its checksum"):
        check(replace(stored, payload=bytes(payload)), "there")


@pytest.mark.parametrize(
    "lie",
    [
        {"first": Position(0x1100, 1)},
        {"last": Position(0x1100, 2)},
        {"commit_end_lsn": 5},
        {"changes": 3},
        {"captured_at": 2.0},
        {"versions": (1,)},
        {"versions": (-1,)},
        {"commit_end_lsn": -1},
        {"crc": 1},
    ],
)
def test_what_is_said_of_a_payload_is_checked_too(chunk, lie):
    with pytest.raises(JournalBroken, match="checksum"):
        check(replace(seal(chunk(2), 1.0), **lie), "here")


def test_another_count_of_changes_is_found(chunk):
    one = chunk(2)
    with pytest.raises(JournalBroken, match="2 changes instead of 3"):
        decode(replace(seal(one, 1.0), changes=3), tables_of(one), STREAM)


def test_cut_leaves_what_is_after_and_the_block_itself_whole(chunk):
    one = chunk(4)
    block = decode(seal(one, 1.0), tables_of(one), STREAM)
    for taken in range(3):
        part = cut(block, Position(one.first.commit_lsn, taken))
        assert ids(part.changes) == list(range(taken + 2, 5))
        assert part.first == Position(one.first.commit_lsn, taken + 1)
        assert part.last == one.last
        assert part.size_bytes < block.size_bytes
    assert cut(block, Position(0, 0)) is block
    assert len(block.changes) == 4


@given(st.lists(st.integers(0, 2**63 - 1)).map(tuple))
def test_versions_come_back(versions):
    assert unpack_versions(pack_versions(versions)) == versions


def test_the_stream_is_that_of_the_identity():
    stream = stream_of(Identity("7", 1, "slot", "p"))
    assert (stream.system_identifier, stream.slot) == ("7", "slot")
    assert stream_of(None) is UNBOUND


def test_another_cluster_is_refused():
    known = Identity("7", 1, "slot", "p")
    refuse_other_cluster(None, known)
    refuse_other_cluster(known, Identity("7", 2, "other", "q"))
    with pytest.raises(WrongCluster, match="cluster 7, not 8"):
        refuse_other_cluster(known, Identity("8", 1, "slot", "p"))
