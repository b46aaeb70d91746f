"""
A stream that breaks anywhere goes on where it was: every message boundary of many recorded histories, in process,
and a real server with a restart at each commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise

import psycopg
import pytest

from backend_watcher.capture.acknowledge import Acknowledgement
from backend_watcher.capture.logical import LogicalSource
from backend_watcher.capture.prepare import LogicalSettings
from backend_watcher.decode.assemble import Assembler
from backend_watcher.decode.tables import make_table
from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.events.change import Change
from backend_watcher.events.chunk import Chunk
from backend_watcher.events.position import START, Position
from backend_watcher.events.table import Table
from backend_watcher.journal import MemoryJournal
from backend_watcher.testing.chunks import read_all
from backend_watcher.testing.fakes import RecordingObserver

from .recorded import Replayed, record, write_history
from .results import Part
from .running import until
from .scale import dice, repeats
from .workload import SCHEMA

HISTORIES = repeats(4, 60)
TRANSACTIONS = 25
RESTARTS = repeats(25, 200)
NEVER = 3600.0


class Disk:
    """What of a journal is durable: chunks, and the LSN that goes with them."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.durable_lsn = 0

    @property
    def last(self) -> Position:
        return self.chunks[-1].last if self.chunks else START

    def keep(self, chunks: list[Chunk]) -> None:
        self.chunks += chunks
        self.durable_lsn = max([self.durable_lsn, *(chunk.commit_end_lsn for chunk in chunks)])

    async def changes(self) -> list[Change]:
        journal = MemoryJournal()
        await journal.open()
        for chunk in self.chunks:
            await journal.append(chunk)
        await journal.flush()
        found = await read_all(journal)
        await journal.close()
        return found


class Session:
    """Reads messages in pieces, as they would come, into chunks; knows what it may confirm."""

    def __init__(self, disk: Disk) -> None:
        self._assembler = Assembler(disk.last, disk.durable_lsn)
        self.acknowledgement = Acknowledgement(disk.durable_lsn)
        self.chunks: list[Chunk] = []

    def read(self, messages: list[bytes]) -> None:
        assembler, sizes, data = self._assembler, [len(message) for message in messages], b"".join(messages)
        taken = assembler.feed(data, sizes)
        while taken < len(sizes):
            assembler.define(_table(assembler.wants))
            taken = assembler.feed(data, sizes, taken)
        self.acknowledgement.fed(assembler.commit_end_lsn, assembler.owed, assembler.in_transaction)
        chunk = assembler.take()
        if chunk is not None:
            self.chunks.append(chunk)


def _table(relation) -> Table:
    columns = [(c.name, c.type_oid, c.modifier, c.identity) for c in relation.columns]
    return make_table(
        relation.relation_oid, relation.schema, relation.name, relation.replica_identity, columns, ("id",)
    )


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres() as postgres:
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            connection.execute(SCHEMA)
            connection.execute("CREATE PUBLICATION recorded FOR TABLE items")
        yield postgres


def described(changes: list[Change]) -> list[tuple[str, str, int]]:
    return [(change.event_id, change.operation, change.row["id"]) for change in changes]


async def recording(server: EmbeddedPostgres, rolls: random.Random) -> Replayed:
    """Return a new history."""
    slot = f"recorded_{secrets.token_hex(4)}"
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE items")
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
        await asyncio.to_thread(write_history, server.dsn, rolls, TRANSACTIONS)
        messages = await record(server.dsn, slot, "recorded")
        drop(connection, slot)
    return Replayed(messages)


def drop(connection: psycopg.Connection, slot: str) -> None:
    """Drop a slot whose walsender may still be leaving."""
    active = "SELECT active FROM pg_replication_slots WHERE slot_name = %s"
    until(lambda: connection.execute(active, [slot]).fetchone() == (False,), "an inactive slot")
    connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])


async def whole(replayed: Replayed) -> list[tuple[str, str, int]]:
    disk = Disk()
    session = Session(disk)
    session.read(replayed.since(0))
    disk.keep(session.chunks)
    return described(await disk.changes())


def stop_after(replayed: Replayed, disk: Disk, count: int, rolls: random.Random) -> None:
    """Read `count` messages in pieces; then the process ends, and some of the newest chunks were not durable yet."""
    session = Session(disk)
    messages = replayed.since(disk.durable_lsn)[:count]
    while messages:
        piece = rolls.randint(1, 8)
        session.read(messages[:piece])
        del messages[:piece]
    durable = session.chunks[: rolls.randint(0, len(session.chunks)) if rolls.random() < 0.5 else None]
    disk.keep(durable)
    session.acknowledgement.durable(disk.durable_lsn)
    safe = session.acknowledgement.safe_lsn
    # What may be confirmed: PostgreSQL would not send again what committed before it.
    held = {chunk_lsn for chunk in disk.chunks for chunk_lsn in (chunk.first.commit_lsn, chunk.last.commit_lsn)}
    newest = max(held, default=0)
    for sent in replayed.transactions:
        rows = any(message[25:26] in b"IUD" for message in sent.messages)
        assert not (rows and newest < sent.commit_lsn < safe), "confirmed, and not on the disk"


@pytest.mark.slow
@pytest.mark.timeout(repeats(180, 1200))
@pytest.mark.scenario("8", "stop and resume at every message boundary")
async def test_a_stop_at_every_message_boundary_is_harmless(server: EmbeddedPostgres, result: Part) -> None:
    rolls = dice("boundaries")
    for _ in range(HISTORIES):
        replayed = await recording(server, rolls)
        expected = await whole(replayed)
        assert len(expected) > TRANSACTIONS
        for boundary in range(len(replayed.since(0)) + 1):
            disk = Disk()
            stop_after(replayed, disk, boundary, rolls)
            # A second stop, anywhere; then to the end.
            stop_after(replayed, disk, rolls.randrange(boundary + 5), rolls)
            session = Session(disk)
            session.read(replayed.since(disk.durable_lsn))
            disk.keep(session.chunks)
            found = described(await disk.changes())
            lost, twice = len(set(expected) - set(found)), len(found) - len(set(found))
            result.add(runs=1, lost=lost, duplicates=twice, phantoms=len(set(found) - set(expected)))
            assert found == expected, f"after a stop at message {boundary}"
        result.add(histories=1, committed=len(expected))


@contextlib.asynccontextmanager
async def streaming(settings: LogicalSettings, journal: MemoryJournal) -> AsyncIterator[RecordingObserver]:
    observer = RecordingObserver()
    task = asyncio.create_task(LogicalSource(settings, journal, observer, watch_seconds=NEVER).run())
    try:
        await observer.wait_for(lambda: "streaming" in observer.states)
        yield observer
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.slow
@pytest.mark.timeout(repeats(180, 900))
@pytest.mark.scenario("9", "interleaved transactions, restart at each commit")
async def test_a_restart_at_each_commit_is_harmless(server: EmbeddedPostgres, result: Part) -> None:
    rolls = dice("restarts")
    name = f"restarts_{secrets.token_hex(4)}"
    settings = LogicalSettings(server.dsn, name, name, ("public.items",), heartbeat_seconds=NEVER, journal_name="j")
    journal, keys, owed = MemoryJournal(), iter(range(2_000_000, 3_000_000)), []
    await journal.open()
    async with streaming(settings, journal):
        pass
    clients = [await psycopg.AsyncConnection.connect(server.dsn) for _ in range(5)]
    written: dict[int, list[int]] = {number: [] for number in range(len(clients))}

    async def write(number: int, rows: int) -> None:
        for _ in range(rows):
            written[number].append(next(keys))
            await clients[number].execute("INSERT INTO items VALUES (%s, 1, 'x')", [written[number][-1]])

    async def commit(number: int) -> None:
        await clients[number].commit()
        owed.extend(written[number])
        written[number] = []

    for _ in range(RESTARTS):
        async with streaming(settings, journal) as observer:
            # Client 0 has the long transaction: it commits rarely, and began before the others.
            for number in range(len(clients)):
                await write(number, rolls.randint(1, 3))
            await commit(rolls.choice([1, 2, 3, 4, 4, 0] if rolls.random() < 0.3 else [1, 2, 3, 4]))
            if rolls.random() < 0.5:
                with contextlib.suppress(TimeoutError):
                    await observer.wait_for(lambda: bool(observer.told), rolls.uniform(0, 0.05))
        result.add(runs=1)
    for number in range(len(clients)):
        await commit(number)
    async with streaming(settings, journal) as observer:
        await observer.wait_for(lambda: journal.last_position != START)
        found: list[Change] = []
        async with asyncio.timeout(30):
            while len(found) < len(owed):
                await journal.flush()
                found = await read_all(journal)
                await asyncio.to_thread(lambda: None)
    for client in clients:
        await client.close()
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        drop(connection, name)
    keys_found = [change.row["id"] for change in found]
    result.add(
        lost=len(set(owed) - set(keys_found)),
        phantoms=len(set(keys_found) - set(owed)),
        duplicates=len(keys_found) - len(set(keys_found)),
        order_violations=sum(b.position <= a.position for a, b in pairwise(found)),
        committed=len(owed),
    )
    assert keys_found == owed
    assert all(a.position < b.position for a, b in pairwise(found))
