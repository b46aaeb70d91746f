"""Transactions whole and in parts, in one stream: a model of whole histories, in whatever pieces they arrive."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backend_watcher import probes
from backend_watcher.capture import intake
from backend_watcher.capture.acknowledge import Acknowledgement
from backend_watcher.capture.intake import Intake
from backend_watcher.capture.spill import Spill
from backend_watcher.decode.pgoutput import Relation
from backend_watcher.decode.tables import make_table
from backend_watcher.errors import ProtocolError
from backend_watcher.events.message import MARK, OWN
from backend_watcher.events.table import Table
from backend_watcher.journal import MemoryJournal
from backend_watcher.postgres.replication import Received
from backend_watcher.testing.chunks import read_all
from backend_watcher.testing.fakes import RecordingObserver
from decode.messages import begin, commit, message

HISTORIES = 150
OID = 16384
Shown = tuple[int, int, str, tuple[str, ...]]


def framed(message: bytes, within: int | None = None) -> bytes:
    """A message as XLogData; in a block the transaction's id comes after its kind."""
    inside = b"" if within is None else struct.pack(">I", within)
    return b"w" + struct.pack(">QQq", 0, 0, 0) + message[:1] + inside + message[1:]


def relation(columns: tuple[str, ...]) -> bytes:
    described = b"".join(b"\1" + name.encode() + b"\0" + struct.pack(">Ii", 25, -1) for name in columns)
    return b"R" + struct.pack(">I", OID) + b"public\0things\0d" + struct.pack(">H", len(columns)) + described


def insert(value: str, columns: tuple[str, ...]) -> bytes:
    cell = b"t" + struct.pack(">I", len(value)) + value.encode()
    return b"I" + struct.pack(">I", OID) + b"N" + struct.pack(">H", len(columns)) + cell * len(columns)


class Columns:
    """Answers like `Describer`, without asking a server."""

    async def table(self, relation: Relation) -> Table:
        columns = [(c.name, c.type_oid, c.modifier, c.identity) for c in relation.columns]
        return make_table(
            relation.relation_oid, relation.schema, relation.name, relation.replica_identity, columns, ["id"]
        )


@dataclass
class Server:
    """
    Sends as a walsender does: whole transactions after their commit, others in parts, parts of which it undoes.

    It describes a table once in the stream and once in each transaction in progress, and forgets of what it described
    there when a part of it is undone. `done` is what a reader must end with.
    """

    dice: random.Random
    sent: list[bytes] = field(default_factory=list)
    done: list[Shown] = field(default_factory=list)
    lsn: int = 0x1000
    next_xid: int = 700
    columns: tuple[str, ...] = ("id",)
    described: bool = False
    described_in: set[int] = field(default_factory=set)
    open: dict[int, list[tuple[int, str, tuple[str, ...]]]] = field(default_factory=dict)
    saved: dict[int, list[list[int]]] = field(default_factory=dict)

    def xid(self) -> int:
        self.next_xid += 1
        return self.next_xid

    def step(self) -> None:
        kind = self.dice.choice(["whole", "part", "part", "part", "abort", "commit", "alter"])
        if kind == "whole":
            self.whole()
        elif kind == "part":
            self.part()
        elif kind == "alter":
            self.columns = self.dice.choice([("id",), ("id", "b"), ("id", "c")])
            self.described = False
            self.described_in.clear()
        elif self.open:
            self.end(self.dice.choice(list(self.open)), abort=kind == "abort")

    def whole(self) -> None:
        self.lsn += 0x100
        xid = self.xid()
        self.sent.append(framed(b"B" + struct.pack(">QqI", self.lsn, 5, xid)))
        for number in range(self.dice.randint(0, 3)):
            if not self.described:
                self.sent.append(framed(relation(self.columns)))
                self.described = True
            self.sent.append(framed(insert(f"w{xid}", self.columns)))
            self.done.append((self.lsn, number, f"w{xid}", self.columns))
        self.sent.append(framed(b"C\0" + struct.pack(">QQq", self.lsn, self.lsn + 8, 5)))

    def part(self) -> None:
        new = not self.open or (len(self.open) < 3 and self.dice.random() < 0.3)
        xid = self.xid() if new else self.dice.choice(list(self.open))
        rows = self.open.setdefault(xid, [])
        # The savepoints that are open, the first standing for the transaction: each with what was released into it.
        saved = self.saved.setdefault(xid, [[xid]])
        self.sent.append(framed(b"S" + struct.pack(">IB", xid, new)))
        for _ in range(self.dice.randint(0, 8)):
            what = self.dice.choice(["rows", "rows", "save", "release", "roll back"])
            if what == "rows":
                self.rows(xid, saved[-1][0], rows)
            elif what == "save":
                saved.append([self.xid()])
            elif len(saved) > 1 and what == "release":
                released = saved.pop()
                saved[-1] += released
            elif len(saved) > 1:
                gone = saved.pop()
                self.sent.append(framed(b"E"))
                touched = [one for one in gone if any(row[0] == one for row in rows)]
                self.sent += [framed(b"A" + struct.pack(">II", xid, one)) for one in touched]
                self.sent.append(framed(b"S" + struct.pack(">IB", xid, 0)))
                rows[:] = [row for row in rows if row[0] not in gone]
                if touched:
                    self.described_in.discard(xid)
        self.sent.append(framed(b"E"))

    def rows(self, xid: int, within: int, rows: list[tuple[int, str, tuple[str, ...]]]) -> None:
        if xid not in self.described_in:
            self.sent.append(framed(relation(self.columns), within))
            self.described_in.add(xid)
        for _ in range(self.dice.randint(1, 3)):
            self.sent.append(framed(insert(f"p{within}", self.columns), within))
            rows.append((within, f"p{within}", self.columns))

    def end(self, xid: int, *, abort: bool) -> None:
        rows = self.open.pop(xid)
        if abort:
            self.sent.append(framed(b"A" + struct.pack(">II", xid, xid)))
            self.described_in.discard(xid)
            return
        self.lsn += 0x100
        self.sent.append(framed(b"c" + struct.pack(">IBQQq", xid, 0, self.lsn, self.lsn + 8, 5)))
        self.done += [(self.lsn, number, value, columns) for number, (_, value, columns) in enumerate(rows)]
        self.described = self.described or xid in self.described_in
        self.described_in.discard(xid)


async def session(
    journal: MemoryJournal, spill: Spill, sent: list[bytes], done: list[Shown], dice: random.Random
) -> Intake:
    """Take messages in random pieces."""
    acknowledgement = Acknowledgement(0x800)
    taking = Intake(journal, RecordingObserver(), acknowledgement, Columns(), spill, 0x800)  # type: ignore[arg-type]
    taking.begin()
    at = 0
    while at < len(sent):
        piece = sent[at : at + dice.choice([1, 2, 5, 30])]
        at += len(piece)
        await taking.take(Received(b"".join(piece), [len(one) for one in piece]))
        await journal.flush()
        acknowledgement.durable(journal.durable_lsn)
        await check_safe(acknowledgement, journal, done)
    return taking


async def check_safe(acknowledgement: Acknowledgement, journal: MemoryJournal, done: list[Shown]) -> None:
    """Nothing may be confirmed that the journal does not hold."""
    confirmed = [row for row in done if row[0] + 8 <= acknowledgement.safe_lsn]
    assert await shown(journal) >= confirmed


async def shown(journal: MemoryJournal) -> list[Shown]:
    return [
        (change.position.commit_lsn, change.position.ordinal, change.row["id"], tuple(change.row))
        for change in await read_all(journal)
    ]


async def test_whatever_is_committed_arrives_once_in_commit_order(
    dice: random.Random, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(HISTORIES):
        # Pieces of a few rows, so that chunks begin and end within transactions.
        monkeypatch.setattr(intake, "PIECE_BYTES", dice.choice([1, 200, 1 << 20]))
        server = Server(dice)
        for _ in range(dice.randint(1, 25)):
            server.step()
        journal, spill = MemoryJournal(), Spill(tmp_path / f"s{number}", 1 << 30)
        await journal.open()
        # A session ends anywhere; the next one is sent everything again.
        cut = dice.randint(0, len(server.sent))
        await session(journal, spill, server.sent[:cut], server.done, dice)
        before = await shown(journal)
        assert before == server.done[: len(before)]
        spill.clear()
        await session(journal, spill, server.sent, server.done, dice)
        assert await shown(journal) == server.done
        assert len(spill) == len(server.open)
        await journal.close()


async def test_a_part_that_was_not_asked_for_is_refused(journal: MemoryJournal) -> None:
    taking = Intake(journal, RecordingObserver(), Acknowledgement(0), Columns(), None, 0)  # type: ignore[arg-type]
    taking.begin()
    start = framed(b"S" + struct.pack(">IB", 700, 1))
    with pytest.raises(ProtocolError, match="not asked for"):
        await taking.take(Received(start, [len(start)]))


async def test_a_keepalive_inside_a_part_says_nothing(journal: MemoryJournal, tmp_path: Path) -> None:
    acknowledgement = Acknowledgement(0x800)
    taking = Intake(
        journal,
        RecordingObserver(),
        acknowledgement,
        Columns(),
        Spill(tmp_path, 1000),
        0x800,  # type: ignore[arg-type]
    )
    taking.begin()
    start, stop = framed(b"S" + struct.pack(">IB", 700, 1)), framed(b"E")
    await taking.take(Received(start, [len(start)], keepalive_lsn=0x900))
    assert acknowledgement.received_lsn == 0x800
    await taking.take(Received(stop, [len(stop)], keepalive_lsn=0x900))
    assert acknowledgement.received_lsn == 0x900


async def test_a_large_one_goes_on_in_pieces(
    journal: MemoryJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "PIECE_BYTES", 1000)
    pieces = 0

    def count() -> None:
        nonlocal pieces
        pieces += 1

    probes.arm("capture.streamed_piece", count)
    server = Server(random.Random(1))
    sent = [framed(b"S" + struct.pack(">IB", 700, 1)), framed(relation(("id",)), 700)]
    for _ in range(10):
        sent += [framed(insert("x" * 20, ("id",)), 700)] * 20 + [
            framed(b"E"),
            framed(b"S" + struct.pack(">IB", 700, 0)),
        ]
    sent += [framed(b"E"), framed(b"c" + struct.pack(">IBQQq", 700, 0, 0x2000, 0x2008, 5))]
    await session(journal, Spill(tmp_path / "s", 1 << 20), sent, [], server.dice)
    assert len(await shown(journal)) == 200
    assert pieces >= 5
    assert journal.durable_lsn == 0x2008


async def test_a_mark_is_told_of_when_its_commit_is_noted(journal: MemoryJournal) -> None:
    told: list[int] = []
    acknowledgement = Acknowledgement(0x800)
    taking = Intake(
        journal,
        RecordingObserver(),
        acknowledgement,
        Columns(),  # type: ignore[arg-type]
        None,
        0x800,
        marked=lambda: told.append(acknowledgement.safe_lsn),
    )
    taking.begin()
    for prefix, wanted in ((MARK, [0xA10]), (f"{OWN}heartbeat", [0xA10])):
        sent = [begin(0xA00), message(prefix, b"", transactional=True), commit(0xA00, 0xA10)]
        run = [framed(one) for one in sent]
        await taking.take(Received(b"".join(run), [len(one) for one in run]))
        assert told == wanted
