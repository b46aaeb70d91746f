"""Runs of messages become chunks: a model of whole histories, and what must be refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import messages as wire
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from backend_watcher.decode.assemble import Assembler
from backend_watcher.decode.chunks import expand
from backend_watcher.decode.messages import OWN
from backend_watcher.decode.pgoutput import Relation
from backend_watcher.decode.tables import make_table
from backend_watcher.errors import ProtocolError
from backend_watcher.events.change import Change
from backend_watcher.events.chunk import Chunk
from backend_watcher.events.message import FULL_NAME
from backend_watcher.events.position import START, Position
from backend_watcher.events.row import ABSENT, UNCHANGED, Row
from backend_watcher.events.table import Table
from backend_watcher.testing.builders import STREAM

TEXT = 25
OIDS = (16384, 16385, 0x80000001, 0xFFFFFFFF)
Shown = tuple[str, Position, int, int, str, Any, Any]


@dataclass(frozen=True)
class Shape:
    """A table at a moment: `versions` differ in their columns, `full` in what is sent of old rows."""

    oid: int
    version: int

    @property
    def full(self) -> bool:
        return self.version % 3 == 2

    @property
    def names(self) -> list[str]:
        return ["id", *(f"v{self.version}_{number}" for number in range(self.version))]

    @property
    def columns(self) -> list[tuple[str, int, int, bool]]:
        return [(name, TEXT, -1, self.full or name == "id") for name in self.names]

    def relation(self) -> bytes:
        return wire.relation(self.oid, "public", f"t{self.oid}", self.columns, "f" if self.full else "d")

    def table(self) -> Table:
        return make_table(self.oid, "public", f"t{self.oid}", "f" if self.full else "d", self.columns, ["id"])


@dataclass
class Item:
    """One message of a transaction: what it needs described, and the changes it must become."""

    data: bytes
    shapes: list[Shape] = field(default_factory=list)
    changes: list[tuple[str, str, Any, Any]] = field(default_factory=list)
    ordinals: int = 0
    resend: Shape | None = None


@dataclass
class Told:
    """A transaction of the model."""

    lsn: int
    end_lsn: int
    micros: int
    xid: int
    items: list[Item]
    noise: bool

    def shown(self) -> list[Shown]:
        result: list[Shown] = []
        ordinal = 0
        for item in self.items:
            for number, (operation, name, new, old) in enumerate(item.changes):
                position = Position(self.lsn, ordinal + number)
                result.append((operation, position, self.micros, self.xid, name, new, old))
            ordinal += item.ordinals
        return result


def make_row(random: Random, shape: Shape) -> list[Any]:
    return [str(random.randrange(9)), *(random.choice(["", "x", "größer", None, ...]) for _ in shape.names[1:])]


def said(shape: Shape, row: list[Any], key_only: bool = False) -> dict[str, Any]:
    absent = ABSENT if key_only else None
    return {n: UNCHANGED if v is ... else absent if v is None else v for n, v in zip(shape.names, row, strict=True)}


def make_change(random: Random, shape: Shape) -> Item:
    kind = random.choice([b"t", b"b"])
    row, name = make_row(random, shape), f"public.t{shape.oid}"
    before = make_row(random, shape) if shape.full else [str(random.randrange(9)), *[None] * shape.version]
    new, old = wire.cells(row, kind), wire.cells(before, kind)
    sent = {"old": old} if shape.full else {"key": old}
    new_said, old_said = said(shape, row), said(shape, before, not shape.full)
    match random.randrange(4):
        case 0:
            return Item(wire.insert(shape.oid, new), [shape], [("insert", name, new_said, None)], 1)
        case 1:
            return Item(wire.update(shape.oid, new), [shape], [("update", name, new_said, None)], 1)
        case 2:
            return Item(wire.update(shape.oid, new, **sent), [shape], [("update", name, new_said, old_said)], 1)
        case _:
            return Item(wire.delete(shape.oid, **sent), [shape], [("delete", name, None, old_said)], 1)


def make_item(random: Random, current: dict[int, Shape]) -> Item:
    match random.randrange(12):
        case 0:
            oid = random.choice(OIDS)
            current[oid] = Shape(oid, random.randrange(4))
            return Item(b"", resend=current[oid] if random.randrange(2) else None)
        case 1:
            shapes = [current[oid] for oid in random.sample(OIDS, random.randint(1, 3))]
            changes = [("truncate", f"public.t{shape.oid}", None, None) for shape in shapes]
            data = wire.truncate([shape.oid for shape in shapes], random.randrange(4))
            return Item(data, shapes, changes, len(shapes))
        case 2:
            prefix, content = random.choice(["p", "größer"]), random.choice([b"", b"content", b"\xff\0"])
            if random.randrange(3) == 0:
                return Item(wire.message(OWN + prefix, content, transactional=True))
            row = {"prefix": prefix, "content": content}
            told = [("insert", FULL_NAME, row, None)]
            return Item(wire.message(prefix, content, transactional=True), changes=told, ordinals=1)
        case 3:
            return Item(wire.message("p", b"", transactional=False))
        case 4:
            return Item(random.choice([wire.type_name(90_000, "public", "mood"), wire.origin(1, "elsewhere")]))
        case _:
            return make_change(random, current[random.choice(OIDS)])


def make_history(random: Random) -> list[Told]:
    current = {oid: Shape(oid, random.randrange(4)) for oid in OIDS}
    history, lsn = [], random.choice([0, 0x1000, 0xFFFF_FFFF_0000_0000])
    for xid in range(700, 700 + random.randint(1, 7)):
        items = [make_item(random, current) for _ in range(random.choice([0, 1, 2, 4, 12]))]
        end_lsn = lsn + random.randint(1, 50)
        history.append(Told(lsn, end_lsn, random.choice([-5, 0, 1 << 50]), xid, items, random.randrange(4) == 0))
        lsn = end_lsn + random.randrange(100)
    return history


@dataclass
class Sent:
    """A message in a session, and what the stream has said once it is there."""

    data: bytes
    transaction: Told
    open: bool
    commits: bool = False


def send(history: list[Told]) -> list[Sent]:
    """What a new session sends: each shape before its first row, and again where it changed or was invalidated."""
    known: dict[int, Shape] = {}
    result = []
    for told in history:
        if told.noise:
            result.append(Sent(wire.message("beat", b"", transactional=False), told, open=False))
        result.append(Sent(wire.begin(told.lsn, told.micros, told.xid), told, open=True))
        for item in told.items:
            if item.resend is not None:
                known.pop(item.resend.oid, None)
            for shape in [*item.shapes, *([item.resend] if item.resend else [])]:
                if known.get(shape.oid) != shape:
                    known[shape.oid] = shape
                    result.append(Sent(shape.relation(), told, open=True))
            if item.data:
                result.append(Sent(item.data, told, open=True))
        result.append(Sent(wire.commit(told.lsn, told.end_lsn), told, open=False, commits=True))
    return result


def define(relation: Relation) -> Table:
    columns = [(c.name, c.type_oid, c.modifier, c.identity) for c in relation.columns]
    return make_table(relation.relation_oid, relation.schema, relation.name, relation.replica_identity, columns, ["id"])


def feed(assembler: Assembler, messages: list[bytes]) -> None:
    data, sizes = wire.run(messages)
    taken = assembler.feed(data, sizes)
    while taken < len(sizes):
        assert assembler.wants is not None
        assembler.define(define(assembler.wants))
        assert assembler.wants is None
        taken = assembler.feed(data, sizes, taken)


def as_dict(row: Row | None) -> dict[str, Any] | None:
    return None if row is None else row.to_dict()


def show(change: Change) -> Shown:
    said = change.transaction
    new, old = as_dict(change.new), as_dict(change.old)
    return change.operation.value, change.position, said.commit_micros, said.xid, change.table.full_name, new, old


def read(chunk: Chunk) -> list[Shown]:
    """Decode a chunk by itself, and check what it says of itself."""
    changes = expand(chunk.payload, {table.version: table for table in chunk.tables}, STREAM)
    assert len(changes) == chunk.changes > 0
    assert changes[0].position == chunk.first
    assert changes[-1].position == chunk.last
    return [show(change) for change in changes]


def run_session(random: Random, sent: list[Sent], last: Position, start_lsn: int) -> list[Chunk]:
    """Feed one session in random runs, take at random points, and check what the assembler says meanwhile."""
    assembler = Assembler(last, start_lsn)
    chunks: list[Chunk] = []
    at, end_lsn, chunk_end_lsn, owed = 0, start_lsn, 0, False
    while at < len(sent):
        run = sent[at : at + random.choice([1, 1, 2, 5, 30])]
        at += len(run)
        feed(assembler, [message.data for message in run])
        for message in run:
            if message.commits:
                end_lsn = chunk_end_lsn = message.transaction.end_lsn
                owed = owed or any(change[1] > last for change in message.transaction.shown())
        assert assembler.commit_end_lsn == end_lsn
        assert assembler.in_transaction == run[-1].open
        assert (assembler.open_commit_lsn() is not None) == run[-1].open
        assert assembler.owed == owed
        if random.randrange(3) == 0 or at == len(sent):
            chunk = assembler.take()
            if chunk is not None:
                assert chunk.commit_end_lsn == chunk_end_lsn
                chunks.append(chunk)
            assert (assembler.changes, assembler.size_bytes, assembler.owed) == (0, 0, False)
            assert assembler.take() is None
            chunk_end_lsn, owed = 0, False
    return chunks


@settings(max_examples=500, deadline=None)
@given(st.randoms(use_true_random=True))
def test_every_change_comes_exactly_once(random: Random) -> None:
    history = make_history(random)
    expected = [change for told in history for change in told.shown()]
    journal: list[Shown] = []
    last, start_lsn = START, 0
    for session in range(3):
        # The server begins with a transaction that is not wholly stored, or with any before it.
        open_ones = [n for n, told in enumerate(history) if told.shown() and told.shown()[-1][1] > last]
        first = random.randint(0, open_ones[0] if open_ones else len(history))
        sent = send(history[first:])
        if session < 2:
            sent = sent[: random.randint(0, len(sent))]
        note(f"session {session} from transaction {first}, {len(sent)} messages, after {last}")
        for chunk in run_session(random, sent, last, start_lsn):
            journal += read(chunk)
            last, start_lsn = chunk.last, max(start_lsn, chunk.commit_end_lsn)
    assert journal == expected


def opened(columns: int = 2) -> Assembler:
    """An assembler inside a transaction that knows relation 5."""
    assembler = Assembler(START)
    described = [(f"c{n}", TEXT, -1, n == 0) for n in range(columns)]
    data, sizes = wire.run([wire.begin(100), wire.relation(5, "s", "t", described)])
    assert assembler.feed(data, sizes) == 1
    assert assembler.wants is not None
    assembler.define(make_table(5, "s", "t", "d", described, ["c0"]))
    assert assembler.feed(data, sizes, 1) == 2
    return assembler


ROW = wire.cells(["1", "2"])


@pytest.mark.parametrize(
    ("message", "offset"),
    [
        (wire.insert(6, ROW), 1),
        (wire.insert(0, ROW), 1),
        (wire.update(6, ROW), 1),
        (wire.delete(0xFFFFFFFF, key=ROW), 1),
        (wire.insert(5, wire.cells(["1"])), 6),
        (wire.insert(5, wire.cells(["1", "2", "3"])), 6),
        (wire.update(5, wire.cells([]), key=ROW), 6 + len(ROW) + 1),
        (wire.update(5, ROW, old=wire.cells(["1"])), 6),
        (wire.delete(5, key=wire.cells(["1"])), 6),
        (wire.insert(5, ROW) + b"\0", 6 + len(ROW)),
        (wire.update(5, ROW)[:-1], 6 + len(ROW) - 1),
        (b"U\0\0\0\5K" + ROW, 6 + len(ROW)),
        (b"U\0\0\0\5K" + ROW + b"X" + ROW, 6 + len(ROW)),
        (b"I\0\0\0\5K" + ROW, 5),
        (b"D\0\0\0\5N" + ROW, 5),
        (b"I\0\0\0\5", 0),
        (b"D\0", 0),
        (b"I\0\0\0\5N", 6),
        (wire.begin(200), 1),
        (wire.commit(101, 110), 2),
        (wire.commit(100, 110) + b"\0", 1),
        (b"B" + b"\0" * 19, 1),
        (wire.truncate([5, 6]), 0),
        (wire.truncate([5])[:-1], 6),
        (wire.relation(5, "s", "t", [], "x"), 9),
        (b"Z123", 0),
        (b"?", 0),
        (b"w", 0),
        (b"\0", 0),
        (wire.stream_start(700, True), 0),
        (wire.stream_stop(), 0),
        (wire.stream_commit(700, 1, 2, 3), 0),
        (wire.begin_prepare(1, 2, 3, 700, "g"), 0),
        (wire.prepared("P", 1, 2, 3, 700, "g"), 0),
        (wire.prepared("K", 1, 2, 3, 700, "g"), 0),
        (wire.prepared("p", 1, 2, 3, 700, "g"), 0),
        (wire.rollback_prepared(1, 2, 3, 4, 700, "g"), 0),
    ],
)
@pytest.mark.parametrize("before", [0, 3], ids=["first", "later in the run"])
def test_what_is_refused(message: bytes, offset: int, before: int) -> None:
    assembler = opened()
    with pytest.raises(ProtocolError) as caught:
        assembler.feed(*wire.run([wire.insert(5, ROW)] * before + [message]))
    assert (caught.value.message_type, caught.value.offset) == (chr(message[0]), offset)


@pytest.mark.parametrize(
    "message", [wire.insert(5, ROW), wire.delete(5, key=ROW), wire.truncate([5]), wire.commit(100, 110)]
)
def test_a_change_or_commit_outside_a_transaction_is_refused(message: bytes) -> None:
    assembler = opened()
    assembler.feed(*wire.run([wire.commit(100, 110)]))
    with pytest.raises(ProtocolError) as caught:
        assembler.feed(*wire.run([message]))
    assert caught.value.message_type == chr(message[0])


@pytest.mark.parametrize("sizes", [[0], [25], [-1], [1 << 40], [40, 2], [26, -26]])
def test_sizes_that_are_not_those_of_messages(sizes: list[int]) -> None:
    data = wire.xlog_data(wire.message("", b"", transactional=False))
    assert len(data) == 40
    with pytest.raises(ProtocolError):
        opened().feed(data, sizes)


def test_a_relation_without_a_number_is_not_taken_for_the_last_one() -> None:
    # Zero is no relation, neither for a new assembler nor for one that has just begun another chunk.
    with pytest.raises(ProtocolError):
        Assembler(START).feed(*wire.run([wire.begin(100), wire.insert(0, ROW)]))
    assembler = opened()
    assembler.feed(*wire.run([wire.insert(5, ROW)]))
    assembler.take()
    with pytest.raises(ProtocolError):
        assembler.feed(*wire.run([wire.insert(0, ROW)]))


def test_an_abort_without_a_stream_is_stepped_over() -> None:
    assembler = opened()
    feed(assembler, [wire.insert(5, ROW), wire.stream_abort(700, 701), wire.insert(5, ROW)])
    chunk = assembler.take()
    assert chunk is not None
    assert [shown[1] for shown in read(chunk)] == [Position(100, 0), Position(100, 1)]


def test_a_relation_is_asked_for_until_it_is_defined() -> None:
    assembler = Assembler(START)
    first, second = Shape(OIDS[0], 1), Shape(OIDS[0], 2)
    data, sizes = wire.run([wire.begin(1), first.relation()])
    assert [assembler.feed(data, sizes), assembler.feed(data, sizes, 1), assembler.feed(data, sizes, 1)] == [1, 1, 1]
    with pytest.raises(ValueError, match="was not asked for"):
        assembler.define(second.table())
    assembler.define(first.table())
    assert assembler.feed(data, sizes, 1) == 2
    assert assembler.feed(data, sizes, 2) == 2
    with pytest.raises(ValueError, match="was not asked for"):
        assembler.define(first.table())


def test_a_table_that_changes_back_within_a_chunk() -> None:
    assembler = opened()
    shapes = [Shape(OIDS[0], version) for version in (1, 3, 1)]
    rows = [[str(number), *["x"] * shape.version] for number, shape in enumerate(shapes)]
    for shape, row in zip(shapes, rows, strict=True):
        feed(assembler, [shape.relation(), wire.insert(shape.oid, wire.cells(row))])
    chunk = assembler.take()
    assert chunk is not None
    assert [shown[5] for shown in read(chunk)] == [said(shape, row) for shape, row in zip(shapes, rows, strict=True)]
    assert len(chunk.tables) == 2


def test_no_message_is_copied() -> None:
    assembler = opened()
    assembler.take()
    data, sizes = wire.run([wire.insert(5, ROW), wire.insert(5, ROW)])
    assembler.feed(data, sizes)
    chunk = assembler.take()
    assert chunk is not None
    assert chunk.payload.endswith(data)
