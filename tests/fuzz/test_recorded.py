"""Everything a real server says is understood, in every protocol version, and means what was done."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from backend_watcher.decode.assemble import Assembler
from backend_watcher.decode.chunks import expand
from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.events.change import Change
from backend_watcher.events.message import FULL_NAME
from backend_watcher.events.position import START
from backend_watcher.events.row import UNCHANGED
from backend_watcher.testing.builders import STREAM
from skips import needs

from .recording import MODES, PLAIN, SETTINGS, modes_of, read_corpus, record, run_workload
from .replay import Replay, Told, define, replay

# What the workload leaves, with the types made by it as text.
LEFT = {
    "public.items": "SELECT id, name, mood::text, price, made, photo, doc, large FROM items",
    "public.whole": "SELECT a, b, p::text, large FROM whole",
    "public.indexed": "SELECT id, email, n::text FROM indexed",
    'public."Größe.2"': 'SELECT a, b, extra FROM "Größe.2"',
}
KEY = {"public.items": ["id"], "public.indexed": ["email"], 'public."Größe.2"': ["b", "a"], "public.whole": ["a", "b"]}
OF_THE_WORKLOAD = ("mood", "p", "n")  # columns of types that are text in one form and bytes in the other


class Recorded:
    """A server on which everything was done, and what it said in each mode."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.kinds = run_workload(dsn)
        with psycopg.connect(dsn) as db:
            self.version = db.info.server_version
        self.messages = {name: record(dsn, **options) for name, options in modes_of(self.version).items()}
        self.told = {name: replay(messages) for name, messages in self.messages.items()}


@pytest.fixture(scope="module")
def recorded() -> Iterator[Recorded]:
    with EmbeddedPostgres(settings=SETTINGS) as server:
        yield Recorded(server.dsn)


def skip_unless_known(recorded: Recorded, mode: str) -> None:
    protocol = int(MODES[mode]["proto_version"])
    needs(12 + protocol, f"protocol {protocol}", recorded.version)


def kinds(told: Replay) -> list[str]:
    return ["".join(change.kind for change in transaction) for transaction in told.transactions]


def without_own_types(told: Replay) -> list[list[Any]]:
    def strip(row: dict[str, Any] | None) -> dict[str, Any] | None:
        return row and {name: value for name, value in row.items() if name not in OF_THE_WORKLOAD}

    return [[change._replace(new=strip(change.new), old=strip(change.old)) for change in t] for t in told.transactions]


@pytest.mark.parametrize("mode", MODES)
def test_every_transaction_comes_in_commit_order(recorded: Recorded, mode: str) -> None:
    skip_unless_known(recorded, mode)
    assert kinds(recorded.told[mode]) == recorded.kinds


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_says_the_same(recorded: Recorded, mode: str) -> None:
    skip_unless_known(recorded, mode)
    assert without_own_types(recorded.told[mode]) == without_own_types(recorded.told["v1_text"])
    assert recorded.told[mode].loose == [("loose", b"at once"), ("loose", b"\xff\0")]
    assert recorded.told[mode].types >= {"public.mood", "public.pair"}


def test_every_type_of_message_was_said(recorded: Recorded) -> None:
    seen = set().union(*(told.seen for told in recorded.told.values()))
    streamed = {*"BCORYIUDTMSEc", "A9"}
    assert recorded.told["v1_text"].seen == set("BCORYIUDTM")
    assert recorded.told["v2_streamed"].seen == streamed
    needs(15, "protocol 3", recorded.version)
    assert seen >= streamed | set("bPKrp")
    needs(16, "protocol 4", recorded.version)
    assert recorded.told["v4_parallel"].seen == {*"BCORYIUDTMSEc", "A25"}
    assert seen == streamed | {*"bPKrp", "A25"}


def test_the_rows_are_those_of_the_tables(recorded: Recorded) -> None:
    """A replica made of the changes equals the tables, so nothing is lost, moved, or read as something else."""
    replica: dict[str, dict[Any, dict[str, Any]]] = {name: {} for name in LEFT}
    for change in (change for transaction in recorded.told["v1_text"].transactions for change in transaction):
        apply(replica, change)
    with psycopg.connect(recorded.dsn) as db:
        for name, query in LEFT.items():
            cursor = db.execute(query)
            names = [column.name for column in cursor.description or ()]
            rows = [dict(zip(names, row, strict=True)) for row in cursor]
            assert rows
            for row in replica[name].values():
                if "extra" in names:
                    row.setdefault("extra", 5)  # the default that ADD COLUMN gave to older rows
            assert sorted(replica[name].values(), key=repr) == sorted(rows, key=repr)


def apply(replica: dict[str, dict[Any, dict[str, Any]]], change: Told) -> None:
    if change.kind == "M":
        return
    if change.kind == "T":
        for name in change.table.split():
            replica[name].clear()
        return
    rows, key = replica[change.table], KEY[change.table]
    before = None
    if change.old is not None or (change.new is not None and change.kind == "U"):
        source = change.old if change.old is not None else change.new
        assert source is not None
        before = rows.pop(tuple(source[name] for name in key))
    if change.new is not None:
        # Columns come and go; a large value that was not touched is the one from before.
        row = {name: before[name] if value is UNCHANGED and before else value for name, value in change.new.items()}
        row.pop("note", None)
        assert tuple(row[name] for name in key) not in rows
        rows[tuple(row[name] for name in key)] = row


def test_the_states_a_server_sends(recorded: Recorded) -> None:
    changes = [change for transaction in recorded.told["v1_text"].transactions for change in transaction]
    unchanged, moved = [change for change in changes if (change.kind, change.table) == ("U", "public.items")][:2]
    assert unchanged.new is not None
    assert (unchanged.old, unchanged.new["name"], unchanged.new["large"]) == (None, None, UNCHANGED)
    assert moved.old is not None
    assert moved.old["id"] == 1
    whole = [change for change in changes if (change.kind, change.table) == ("U", "public.whole")]
    assert whole[0].old is not None
    # The whole old row, its large value too.
    assert (whole[0].old["a"], whole[0].old["b"], len(whole[0].old["large"])) == (1, "b", 2100)
    by_index = [change for change in changes if (change.kind, change.table) == ("U", "public.indexed")]
    assert [change.old and change.old["email"] for change in by_index] == ["a@x", None]


def test_an_origin_can_be_left_out(recorded: Recorded) -> None:
    needs(16, "the option origin", recorded.version)
    told = replay(record(recorded.dsn, PLAIN, proto_version="1", origin="none"))
    assert kinds(told) == recorded.kinds[:-1]


def assemble(messages: list[bytes], run: int, take_every: int) -> list[Change]:
    assembler = Assembler(START)
    framed = [b"w" + struct.pack(">QQq", 0, 0, 0) + message for message in messages]
    changes: list[Change] = []
    for number, at in enumerate(range(0, len(framed), run)):
        frames = framed[at : at + run]
        data, sizes = b"".join(frames), [len(frame) for frame in frames]
        taken = assembler.feed(data, sizes)
        while taken < len(sizes):
            assert assembler.wants is not None
            assembler.define(define(assembler.wants))
            taken = assembler.feed(data, sizes, taken)
        if number % take_every == 0 or at + run >= len(framed):
            chunk = assembler.take()
            if chunk is not None:
                changes += expand(chunk.payload, {table.version: table for table in chunk.tables}, STREAM)
    return changes


@pytest.mark.parametrize("mode", ["v1_text", "v1_binary", "v2_whole"])
@pytest.mark.parametrize(("run", "take_every"), [(1, 1), (7, 3), (100_000, 1)])
def test_the_assembler_says_what_the_server_said(recorded: Recorded, mode: str, run: int, take_every: int) -> None:
    changes = assemble(recorded.messages[mode], run, take_every)
    told = [change for transaction in recorded.told[mode].transactions for change in transaction]
    said = [change for change in changes if change.table.full_name == FULL_NAME]
    assert [(change.row["prefix"], change.row["content"]) for change in said] == [
        (change.table, change.new and change.new["content"]) for change in told if change.kind == "M"
    ]
    rows = [change for change in changes if change.operation != "truncate" and change.table.full_name != FULL_NAME]
    expected = [change for change in told if change.kind in "IUD"]
    assert len(rows) == len(expected)
    for change, wish in zip(rows, expected, strict=True):
        new, old = change.new, change.old
        assert (change.operation[0].upper(), change.table.full_name) == (wish.kind, wish.table)
        assert (new and new.to_dict(), old and old.to_dict()) == (wish.new, wish.old)
    truncated = [change.table.full_name for change in changes if change.operation == "truncate"]
    assert sorted(truncated) == sorted(name for change in told if change.kind == "T" for name in change.table.split())
    positions = [change.position for change in changes]
    assert positions == sorted(set(positions))


def test_the_corpus_is_such_a_recording() -> None:
    corpus = read_corpus()
    assert kinds(replay(corpus["v1_text"])) == kinds(replay(corpus["v4_two_phase"]))
    seen = set().union(*(replay(messages).seen for messages in corpus.values()))
    assert seen == {*"BCORYIUDTMSEcbPKrp", "A9", "A25"}
    assert sum(len(message) for messages in corpus.values() for message in messages) < 100_000
