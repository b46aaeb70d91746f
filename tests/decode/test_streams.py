"""Parts of transactions in progress: what is taken out of a block, in whatever pieces it comes."""

from __future__ import annotations

import messages as wire
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.decode.streams import BlockTaker
from backend_watcher.errors import ProtocolError

TOP = 700
OID = 16384

NAMES = (("id", 25, -1, True),)


def part(kind: str, xid: int | None) -> bytes:
    """A message as it is in a block of `xid`, or, with None, as it would be in a transaction that came whole."""
    row = wire.cells(["1"])
    match kind:
        case "I":
            return wire.insert(OID, row, within=xid)
        case "U":
            return wire.update(OID, row, within=xid)
        case "D":
            return wire.delete(OID, key=row, within=xid)
        case "T":
            return wire.truncate([OID], within=xid)
        case "R":
            return wire.relation(OID, "public", "t", NAMES, within=xid)
        case "Y":
            return wire.type_name(OID, "public", "mood", within=xid)
    return wire.message("app", b"content", transactional=True, within=xid)


PARTS = st.lists(st.tuples(st.sampled_from("IUDTRYM"), st.sampled_from([TOP, 701, 0xFFFFFFFE])), max_size=30)


@given(PARTS, st.lists(st.integers(1, 5), max_size=40), st.lists(st.sampled_from("BIC"), max_size=3))
def test_a_block_in_any_pieces_becomes_what_it_would_be_whole(
    parts: list[tuple[str, int]], pieces: list[int], behind: list[str]
) -> None:
    block = [part(kind, xid) for kind, xid in parts]
    after = [{"B": wire.begin(9), "I": part("I", None), "C": wire.commit(9, 10)}[kind] for kind in behind]
    sent = [*block, wire.stream_stop(), *after]
    taker = BlockTaker(TOP)
    at, got = 0, []
    while not taker.ended:
        size = pieces.pop() if pieces else 7
        data, sizes = wire.run(sent[at : at + size])
        taken = taker.take(data, sizes, 0)
        assert taken == len(sizes) or taker.ended
        at += taken
        for run in taker.runs:
            got += [(run.xid, message) for message in messages_of(run.data, run.sizes)]
        taker.runs = []
    assert at == len(block) + 1
    assert got == [(xid, wire.xlog_data(part(kind, None))) for kind, xid in parts]
    assert taker.described == [OID for kind, _ in parts if kind == "R"]


def messages_of(data: bytes, sizes: list[int]) -> list[bytes]:
    found, at = [], 0
    for size in sizes:
        found.append(data[at : at + size])
        at += size
    assert at == len(data)
    return found


def test_it_begins_where_it_is_told_to() -> None:
    data, sizes = wire.run([wire.begin(1), wire.commit(1, 2), part("I", 701), wire.stream_stop(), wire.begin(3)])
    taker = BlockTaker(TOP)
    assert taker.take(data, sizes, 2) == 4
    assert taker.ended
    assert [run.xid for run in taker.runs] == [701]


def test_neighbours_of_one_transaction_are_one_run() -> None:
    data, sizes = wire.run([part("R", 701), part("I", 701), part("I", TOP), part("I", 701)])
    taker = BlockTaker(TOP)
    taker.take(data, sizes, 0)
    assert [(run.xid, len(run.sizes)) for run in taker.runs] == [(701, 2), (TOP, 1), (701, 1)]


def test_where_a_part_came_from_is_left_out() -> None:
    data, sizes = wire.run([wire.origin(5, "elsewhere"), part("I", TOP), wire.stream_stop()])
    taker = BlockTaker(TOP)
    assert taker.take(data, sizes, 0) == 3
    assert [len(run.sizes) for run in taker.runs] == [1]


@pytest.mark.parametrize(
    "message",
    [
        wire.begin(5),
        wire.commit(5, 6),
        wire.stream_start(5, True),
        wire.stream_commit(5, 6, 7, 8),
        b"?",
        b"I\0\0\0",
        b"E\0",
    ],
)
def test_what_cannot_be_in_a_block_is_refused(message: bytes) -> None:
    data, sizes = wire.run([part("I", TOP), message])
    with pytest.raises(ProtocolError):
        BlockTaker(TOP).take(data, sizes, 0)


@pytest.mark.parametrize("sizes", [[25], [0], [4000]])
def test_sizes_that_lie_are_refused(sizes: list[int]) -> None:
    with pytest.raises(ProtocolError, match="CopyData"):
        BlockTaker(TOP).take(wire.xlog_data(part("I", TOP)), sizes, 0)
