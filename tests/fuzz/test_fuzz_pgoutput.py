"""
Broken bytes: one error and nothing else, from every door they come in by.

Uncompiled, reading past the end of a message raises IndexError, which no door may let out; compiled, the same
code would read what lies behind.
"""

from __future__ import annotations

import struct
import tracemalloc
from contextlib import suppress
from itertools import accumulate
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backend_watcher.decode.assemble import Assembler
from backend_watcher.decode.chunks import expand
from backend_watcher.decode.pgoutput import decode
from backend_watcher.errors import JournalBroken, ProtocolError
from backend_watcher.events.change import Change
from backend_watcher.events.chunk import Chunk
from backend_watcher.events.position import START
from backend_watcher.events.row import Row
from backend_watcher.events.table import Table
from backend_watcher.testing.builders import STREAM

from .mutate import broken, shuffled
from .recording import read_corpus
from .replay import define

SEEDS = (1, 20261122, 7919)
DECODED, FED, EXPANDED = 4_600, 900, 1_600
"""How many mutations of each kind with each seed: 21,300 in all."""

XLOG_HEADER = b"w" + b"\0" * 24
CORPUS = read_corpus()


def with_stream_state(messages: list[bytes]) -> list[tuple[bytes, bool]]:
    result, in_stream = [], False
    for message in messages:
        result.append((message, in_stream))
        in_stream = message[:1] == b"S" or (in_stream and message[:1] != b"E")
    return result


MESSAGES = sorted({pair for messages in CORPUS.values() for pair in with_stream_state(messages)})


def make_sessions() -> list[list[bytes]]:
    """Each recorded transaction as the beginning of a session: with the relations its rows need."""
    sessions = []
    for name in ("v1_text", "v1_binary"):
        known: dict[bytes, bytes] = {}
        current: list[bytes] = []
        for message in CORPUS[name]:
            current.append(message)
            if message[:1] == b"R":
                known[message[1:5]] = message
            if message[:1] == b"C":
                sessions.append([current[0], *known.values(), *current[1:]])
                current = []
    return sessions


SESSIONS = make_sessions()


def run(messages: list[bytes]) -> tuple[bytes, list[int]]:
    return b"".join(XLOG_HEADER + message for message in messages), [25 + len(message) for message in messages]


def feed(data: bytes, sizes: list[int]) -> Chunk | None:
    assembler = Assembler(START)
    taken = assembler.feed(data, sizes)
    while taken < len(sizes) and assembler.streamed is None:
        assert assembler.wants is not None
        assembler.define(define(assembler.wants))
        taken = assembler.feed(data, sizes, taken)
    return assembler.take()


def read(change: Change) -> None:
    """Ask for everything; a value that is none of its type is a ProtocolError too."""
    assert change.size_bytes >= 0
    assert change.lane(8) in range(-1, 8)
    change.key_bytes()
    for row in (change.new, change.old):
        if row is not None:
            read_row(row)


def read_row(row: Row) -> None:
    for index, name in enumerate(row.keys()):
        cell = row.raw_at(index)
        assert cell is None or isinstance(cell, bytes) or not row.has_value(name)
    with suppress(ProtocolError):
        row.to_dict()


def try_decode(data: bytes, in_stream: bool) -> bool:
    """Decode; say whether it was refused, as it has to be."""
    try:
        decode(data, in_stream=in_stream)
    except ProtocolError as error:
        check(error, data, {data[:1].decode("latin-1")})
        return True
    return False


def check(error: ProtocolError, data: bytes, types: set[str]) -> None:
    assert 0 <= error.offset <= len(data)
    assert error.message_type in types


def try_feed(data: bytes, sizes: list[int]) -> Chunk | None:
    """Feed; check an error, and that what was taken instead of one can be expanded."""
    begins = [at + 25 for at in accumulate(sizes, initial=0)]
    types = {"w", *(chr(data[at]) for at in begins if 0 <= at < len(data))}
    try:
        chunk = feed(data, sizes)
    except ProtocolError as error:
        check(error, data, types)
        return None
    if chunk is not None:
        changes = expand(chunk.payload, {table.version: table for table in chunk.tables}, STREAM)
        assert len(changes) == chunk.changes
        assert (changes[0].position, changes[-1].position) == (chunk.first, chunk.last)
        for change in changes:
            read(change)
    return chunk


def try_expand(payload: bytes, tables: dict[int, Table]) -> bool:
    try:
        changes = expand(payload, tables, STREAM)
    except JournalBroken:
        return True
    for change in changes:
        read(change)
    return False


def whole_chunks() -> list[Chunk]:
    chunks = [feed(*run(session)) for session in SESSIONS]
    return [chunk for chunk in chunks if chunk is not None]


CHUNKS = whole_chunks()


def test_the_corpus_itself_is_taken() -> None:
    assert len(MESSAGES) > 250
    assert not any(try_decode(data, in_stream) for data, in_stream in MESSAGES)
    assert len(CHUNKS) > 40
    assert not any(try_expand(chunk.payload, {table.version: table for table in chunk.tables}) for chunk in CHUNKS)


@pytest.mark.parametrize("seed", SEEDS)
def test_decode(seed: int) -> None:
    print("seed", seed)
    random = Random(seed)
    refused = 0
    for _ in range(DECODED):
        data, in_stream = random.choice(MESSAGES)
        mutated = broken(random, data)
        if random.randrange(8) == 0:
            in_stream = not in_stream
        elif random.randrange(8) == 0:
            mutated += broken(random, random.choice(MESSAGES)[0])
        refused += try_decode(mutated, in_stream)
    assert refused > DECODED // 3


@pytest.mark.parametrize("seed", SEEDS)
def test_the_assembler(seed: int) -> None:
    print("seed", seed)
    random = Random(seed)
    refused = taken = 0
    for _ in range(FED):
        session = shuffled(random, random.choice(SESSIONS))
        data, sizes = run(session)
        if random.randrange(6) == 0:
            sizes[random.randrange(len(sizes))] += random.choice([-30, -1, 1, 26, 1 << 20, 1 << 31])
        chunk = try_feed(data, sizes)
        taken += chunk is not None
        refused += chunk is None
    assert min(refused, taken) > FED // 10


@pytest.mark.parametrize("seed", SEEDS)
def test_expand(seed: int) -> None:
    print("seed", seed)
    random = Random(seed)
    refused = 0
    for _ in range(EXPANDED):
        chunk = random.choice(CHUNKS)
        tables = {table.version: table for table in chunk.tables}
        payload = chunk.payload
        if random.randrange(2):
            # The directory is small, and says more.
            (head,) = struct.unpack_from(">I", payload, 2)
            payload = broken(random, payload[: 6 + head]) + payload[6 + head :]
        else:
            payload = broken(random, payload)
        refused += try_expand(payload, tables)
    assert refused > EXPANDED // 3


ANYTHING = st.binary(max_size=60)
ANY_MESSAGE = st.builds(lambda kind, rest: bytes([kind]) + rest, st.sampled_from(b"BCORYIUDTMSEcAbPKrp"), ANYTHING)


@settings(max_examples=200, deadline=None)
@given(st.one_of(ANYTHING, ANY_MESSAGE), st.booleans())
@example(b"", False)
def test_any_bytes_at_all(data: bytes, in_stream: bool) -> None:
    with suppress(ProtocolError):
        decode(data, in_stream=in_stream)
    # The assembler takes the same messages, or fewer.
    begin = CORPUS["v1_text"][0]
    known = [message for message in SESSIONS[-1] if message[:1] == b"R"]
    if data:
        try_feed(*run([begin, *known, data]))
        try_feed(*run([data, data]))
    try_expand(data, {})
    try_expand(b"W1" + data, {})
    try_expand(b"W2" + data, {})


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SESSIONS), st.data())
def test_a_row_with_any_bytes_in_it(session: list[bytes], data: st.DataObject) -> None:
    rows = [number for number, message in enumerate(session) if message[:1] in b"IUDT"]
    number = data.draw(st.sampled_from(rows)) if rows else 0
    message = session[number]
    at = data.draw(st.integers(0, len(message)))
    end = data.draw(st.integers(at, min(len(message), at + 12)))
    broken_one = message[:at] + data.draw(st.binary(max_size=12)) + message[end:]
    try_feed(*run([*session[:number], broken_one or b"?", *session[number + 1 :]]))


LIES = [struct.pack(">I", value) for value in (0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x3FFFFFFF, 1 << 24)]


@pytest.mark.parametrize("lie", LIES)
def test_a_length_is_not_believed_before_it_is_checked(lie: bytes) -> None:
    """Whatever a message says of its size, no more is set aside than a few times what it has."""
    tracemalloc.start()
    try:
        for data, in_stream in MESSAGES[::6]:
            for at in range(1, min(len(data), 40) - 3, 3):
                lying = data[:at] + lie + data[at + 4 :]
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
                with suppress(ProtocolError):
                    decode(lying, in_stream=in_stream)
                assert tracemalloc.get_traced_memory()[1] - before < 20_000 + 50 * len(lying)
        for chunk in CHUNKS[::8]:
            tables = {table.version: table for table in chunk.tables}
            for at in range(2, min(len(chunk.payload), 120) - 3, 2):
                lying = chunk.payload[:at] + lie + chunk.payload[at + 4 :]
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
                with suppress(JournalBroken):
                    expand(lying, tables, STREAM)
                assert tracemalloc.get_traced_memory()[1] - before < 20_000 + 50 * len(lying)
    finally:
        tracemalloc.stop()


def test_what_lies_behind_a_message_is_never_read() -> None:
    """Each recorded change cut short, with the rest of it still there behind the end."""
    for session in SESSIONS:
        changed = [number for number, message in enumerate(session) if message[:1] in (b"I", b"U", b"D", b"T")]
        for number in changed[:2]:
            data, sizes = run(session[: number + 1])
            for lost in range(1, min(len(session[number]), 30), 2):
                with pytest.raises(ProtocolError):
                    feed(data, [*sizes[:-1], sizes[-1] - lost])
