"""A chunk that was read is judged by what the stream brought before its watermark."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from backend_watcher.capture.placing import Placed, Placement, Placements
from backend_watcher.decode.chunks import OpenTransaction, RelationMark, pack
from backend_watcher.decode.fetched import fetched_rows, gone_rows
from backend_watcher.events.chunk import Chunk
from backend_watcher.events.position import Position
from backend_watcher.events.snapshot import Snapshot
from backend_watcher.events.table import Table
from backend_watcher.testing import builders

TABLE = builders.table(columns={"id": "int8", "name": "text"})
OTHER = builders.table("public.other", {"id": "int8"}, relation_oid=7)
LOG = builders.table("public.log", {"line": "text"}, (), replica_identity="f")
SEES_ALL = Snapshot(1000, 1000, frozenset())
SEES_NONE = Snapshot(1, 1, frozenset())


def row(kind: bytes, table: Table, mark: bytes, *values: str) -> bytes:
    cells = b"".join(b"t" + len(value).to_bytes(4) + value.encode() for value in values)
    head = kind + table.relation_oid.to_bytes(4) + mark + len(values).to_bytes(2)
    return b"w" + bytes(24) + head + cells


def chunk(table: Table, messages: Sequence[bytes], xid: int = 700) -> Chunk:
    """Return what the stream brought of one transaction."""
    marks = [RelationMark(0, table.relation_oid, table.version)]
    payload = pack(OpenTransaction(500, 0, xid, 0), marks, array("I", map(len, messages)), messages)
    return Chunk(payload, Position(500, 0), Position(500, len(messages) - 1), 0, len(messages), (table,))


async def expected(placements: Placements, table: Table, *lines: bytes, snapshot: Snapshot = SEES_NONE) -> Placement:
    window = placements.open(table.full_name, 1)
    placement = placements.expect(b"mark", window, table)
    data, sizes = fetched_rows(table.relation_oid, len(table.columns), lines)
    placement.fill(data, sizes, snapshot)
    return placement


def judged(placement: Placement) -> tuple[int, int] | None:
    found = placement.judge()
    return None if found is None else (len(found[1]), found[2])


async def test_rows_that_nobody_touched_are_true() -> None:
    placements = Placements()
    placement = await expected(placements, TABLE, b"1\ta\n", b"2\tb\n")
    placements.note(chunk(OTHER, [row(b"I", OTHER, b"N", "1")]))
    placements.note(chunk(TABLE, [row(b"I", TABLE, b"N", "9", "new")]))
    assert judged(placement) == (2, 0)


async def test_rows_that_were_touched_unseen_are_left_out() -> None:
    placements = Placements()
    placement = await expected(placements, TABLE, b"1\ta\n", b"2\tb\n", b"3\tc\n")
    placements.note(chunk(TABLE, [row(b"U", TABLE, b"N", "2", "new"), row(b"D", TABLE, b"K", "3", "")]))
    assert judged(placement) == (1, 2)
    found = placement.judge()
    assert found is not None
    assert found[0] == fetched_rows(TABLE.relation_oid, 2, [b"1\ta\n"])[0]


async def test_what_the_snapshot_saw_makes_nothing_stale() -> None:
    placements = Placements()
    placement = await expected(placements, TABLE, b"1\ta\n", snapshot=SEES_ALL)
    placements.note(chunk(TABLE, [row(b"U", TABLE, b"N", "1", "seen")]))
    assert judged(placement) == (1, 0)


async def test_a_truncate_cannot_be_judged() -> None:
    placements = Placements()
    placement = await expected(placements, TABLE, b"1\ta\n")
    truncate = b"w" + bytes(24) + b"T" + (1).to_bytes(4) + b"\0" + TABLE.relation_oid.to_bytes(4)
    placements.note(chunk(TABLE, [truncate]))
    assert judged(placement) is None


async def test_another_shape_cannot_be_judged() -> None:
    placements = Placements()
    placement = await expected(placements, TABLE, b"1\ta\n")
    placements.described(TABLE)
    placements.described(OTHER)
    assert judged(placement) == (1, 0)
    placements.described(builders.table(columns={"id": "int8", "name": "text", "colour": "text"}))
    assert judged(placement) is None


async def test_what_was_not_read_yet_cannot_be_judged() -> None:
    placements = Placements()
    window = placements.open(TABLE.full_name, 1)
    assert placements.expect(b"mark", window, TABLE).judge() is None


async def test_a_riddle_cannot_be_judged() -> None:
    placements = Placements()
    placement = await expected(placements, TABLE, b"1\ta\n", snapshot=Snapshot(90, 100, frozenset({90})))
    placement.window.opened([90])
    assert judged(placement) is None
    placements.note(chunk(TABLE, [row(b"U", TABLE, b"N", "5", "x")], xid=90))
    assert judged(placement) == (1, 0)


async def found_gone(
    placements: Placements, *lines: bytes, snapshot: Snapshot = SEES_NONE, exact: bool = True
) -> Placement:
    """Return a chunk of keys that no row has."""
    placement = placements.expect(b"gone", placements.open(TABLE.full_name, 1), TABLE)
    placement.fill(*gone_rows(TABLE.relation_oid, 2, [0], lines), snapshot, exact=exact)
    return placement


async def test_a_key_that_has_a_row_again_is_left_out() -> None:
    placements = Placements()
    placement = await found_gone(placements, b"1\n", b"2\n", b"3\n", b"4\n")
    assert judged(placement) == (4, 0)
    placements.note(chunk(TABLE, [row(b"I", TABLE, b"N", "2", "new"), row(b"D", TABLE, b"K", "3", "")]))
    assert judged(placement) == (2, 2)
    found = placement.judge()
    assert found is not None
    assert found[0] == gone_rows(TABLE.relation_oid, 2, [0], [b"1\n", b"4\n"])[0]


async def test_a_key_that_is_gone_since_the_snapshot_saw_it_go_stays_gone() -> None:
    placements = Placements()
    placement = await found_gone(placements, b"1\n", snapshot=SEES_ALL)
    placements.note(chunk(TABLE, [row(b"D", TABLE, b"K", "1", "")]))
    assert judged(placement) == (1, 0)


async def test_where_one_key_has_several_texts_anything_that_was_touched_may_be_it() -> None:
    placements = Placements()
    placement = await found_gone(placements, b"1\n", exact=False)
    assert judged(placement) == (1, 0)
    placements.note(chunk(OTHER, [row(b"I", OTHER, b"N", "1")]))
    assert judged(placement) == (1, 0)
    placements.note(chunk(TABLE, [row(b"I", TABLE, b"N", "9", "new")]))
    assert judged(placement) is None


async def test_what_was_found_gone_makes_nothing_stale() -> None:
    placements = Placements()
    placement = await expected(placements, TABLE, b"1\ta\n")
    data, sizes = gone_rows(TABLE.relation_oid, 2, [0], [b"1\n"])
    placements.note(chunk(TABLE, [data]))
    assert sizes == [len(data)]
    assert judged(placement) == (1, 0)


async def test_equal_rows_of_a_table_without_a_key_cannot_be_told_apart() -> None:
    placements = Placements()
    placement = await expected(placements, LOG, b"a\n", b"b\n")
    placements.note(chunk(LOG, [row(b"I", LOG, b"N", "a")]))
    assert judged(placement) == (2, 0)
    placements.note(chunk(LOG, [row(b"D", LOG, b"O", "a")]))
    assert judged(placement) is None


async def test_a_message_finds_its_chunk_once() -> None:
    placements = Placements()
    placement = await expected(placements, TABLE, b"1\ta\n")
    assert placements.take(b"forged") is None
    assert placements.take(b"mark") is placement
    assert placements.take(b"mark") is None
    again = placements.expect(b"again", placement.window, TABLE)
    placements.forget(again)
    assert placements.take(b"again") is None


async def test_a_window_that_is_closed_notes_nothing() -> None:
    placements = Placements()
    placement = await expected(placements, TABLE, b"1\ta\n")
    placements.close(TABLE.full_name, placement.window)
    placements.close(TABLE.full_name, placement.window)
    placements.note(chunk(TABLE, [row(b"U", TABLE, b"N", "1", "x")]))
    assert len(placement.window) == 0


async def test_what_became_of_it_is_told_once() -> None:
    placements = Placements()
    placement = await expected(placements, TABLE, b"1\ta\n")
    placement.tell(Placed(rows=1))
    placement.tell(Placed(again=True))
    assert await placement.done == Placed(rows=1)
