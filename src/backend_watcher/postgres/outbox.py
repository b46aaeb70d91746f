"""What the reader of an outbox asks of the source, and tells it. What is there at all: `outbox_install.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.rows import tuple_row

from backend_watcher.errors import SlotMoved, SourceError, SourceUnavailable
from backend_watcher.events.position import format_lsn
from backend_watcher.postgres.connect import Connection, answering
from backend_watcher.postgres.queries import QUERIES, fetch_all, fetch_one
from backend_watcher.postgres.translate import read_lsn, state_of, translating

CHANNEL = "watcher_outbox"
"""What a commit that wrote into the outbox notifies, without a payload: it only wakes."""

MESSAGE = "M"

TRANSACTIONS_AT_ONCE = 1000
READING_SECONDS_MAX = 300
"""For one question about a batch, however much gathered while nobody read."""

_SERIALIZED = frozenset({"23505", "40001"})
_BUSY = "55P03"


@dataclass(frozen=True, slots=True)
class ReaderState:
    """
    The outbox: in which cluster it was made, which journal reads it, up to which batch that journal is durable.

    `next_xid` is what the server will call its next transaction, at the least.
    """

    cluster: str
    journal: str | None
    batch: int
    snapshot: str
    end_lsn: int
    next_xid: int


class Begun(NamedTuple):
    """A batch that was written down before it was read."""

    number: int
    snapshot: str
    start_lsn: int


class TransactionRow(NamedTuple):
    """What a transaction left in the outbox; `micros` since 2000-01-01 UTC."""

    xid: int
    last_number: int
    rows: int
    size_bytes: int
    micros: int


class OutboxRow(NamedTuple):
    """
    One change as it was written; rows are the texts of composite values, in UTF-8.

    With the operation `MESSAGE` it is what an application said: `old_row` is the prefix, `new_row` the content.
    """

    xid: int
    number: int
    shape: int
    operation: str
    old_row: bytes | None
    new_row: bytes | None


class ShapeRow(NamedTuple):
    """How a table looked; each column is (name, type oid, modifier, generated)."""

    shape: int
    relation: int
    schema: str
    name: str
    columns: Sequence[tuple[str, int, int, str]]


class Part(NamedTuple):
    """A part of the outbox that holds something; `written` says that new rows go there."""

    part: int
    size_bytes: int
    written: bool


class CoveredTable(NamedTuple):
    """A table, and our triggers on it by their names, each with its OID and when it fires (pg_trigger.tgenabled)."""

    schema: str
    name: str
    oid: int
    triggers: Mapping[str, tuple[int, str]]


class _Raw(Loader):
    """Text as the bytes that came."""

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


async def make_ready(conn: Connection) -> None:
    """Give a session the time and the isolation that the questions here need, whatever the role has for defaults."""
    with translating(), answering(conn):
        await conn.execute(f"SET statement_timeout = '{READING_SECONDS_MAX}s'".encode())
        await conn.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED")


async def take(conn: Connection) -> None:
    """Take the outbox for this session. Raises SourceUnavailable where another session has it."""
    for row in await fetch_all(conn, "outbox_lock"):
        if not row["got"] and row["pid"] is not None and row["entitled"]:
            who = f"{row['application_name']!r}, " if row["application_name"] else ""
            raise SourceUnavailable(
                f"the outbox is read by {who}pid {row['pid']}",
                remedy="Stop the other watcher; one outbox has one reader. This one goes on when it is gone.",
            )


async def state(conn: Connection) -> ReaderState:
    """Ask who reads it and how far. Raises SourceRefused where it is not there."""
    row = await fetch_one(conn, "outbox_reader")
    assert row is not None
    end_lsn, next_xid = read_lsn(row["end_lsn"]), int(row["next_xid"])
    return ReaderState(row["cluster"], row["journal"], row["batch"], row["snapshot"], end_lsn, next_xid)


async def cover(conn: Connection, names: Sequence[tuple[str, str]]) -> tuple[list[CoveredTable], float]:
    """Look which of our triggers tables have, and how full the queue of notifications is, from 0 to 1."""
    row = await fetch_one(
        conn, "outbox_cover", schemas=[schema for schema, _ in names], names=[name for _, name in names]
    )
    assert row is not None
    tables = [
        CoveredTable(one["schema"], one["name"], one["oid"], {n: (int(t[0]), t[1]) for n, t in one["triggers"].items()})
        for one in row["tables"] or ()
    ]
    return tables, float(row["usage"])


async def bind(conn: Connection, journal: str, *, adopt: bool) -> bool:
    """Bind it to a journal; say whether it is bound to this one now."""
    return bool(await fetch_all(conn, "outbox_bind", journal=journal, adopt=adopt))


async def batches(conn: Connection) -> list[Begun]:
    """Return the batches that were begun, and are not done."""
    rows = await fetch_all(conn, "outbox_batches")
    return [Begun(row["number"], row["snapshot"], read_lsn(row["start_lsn"])) for row in rows]


async def claim(
    conn: Connection, journal: str, number: int, xmax: int, running: Sequence[int], floor_lsn: int
) -> Begun | None:
    """
    Begin batch `number` if the last snapshot did not see everything; None where it did.

    Durable on the source when it returns. Raises SlotMoved where another reader has begun that batch.
    """
    try:
        row = await fetch_one(
            conn,
            "outbox_claim",
            number=number,
            journal=journal,
            xmax=str(xmax),
            xip=[str(one) for one in running],
            floor=format_lsn(floor_lsn),
        )
    except SourceError as error:
        if state_of(error) in _SERIALIZED:
            raise SlotMoved(
                f"another watcher has begun batch {number} of the outbox",
                remedy="Stop the other watcher; one outbox has one reader.",
            ) from None
        raise
    return None if row is None else Begun(row["number"], row["snapshot"], read_lsn(row["start_lsn"]))


async def transactions(
    conn: Connection, xmax: int, running: Sequence[int], snapshot: str
) -> AsyncIterator[list[TransactionRow]]:
    """
    Give the transactions that `snapshot` sees, and that one with this `xmax` and `running` did not, in order.

    However many there are, few are in memory at a time; the source keeps the list in a file where it is long.
    """
    values = {"xmax": str(xmax), "xip": [str(one) for one in running], "snapshot": snapshot}
    limit = TRANSACTIONS_AT_ONCE
    first = await fetch_all(conn, "outbox_transactions", **values, limit=limit)
    if len(first) < limit:
        yield [_transaction(tuple(row.values())) for row in first]
        return
    # Beyond one transaction of the session, so that it holds back no vacuum while the journal waits for room.
    with translating():
        async with conn.cursor(name="watcher_listed", withhold=True, row_factory=tuple_row) as cursor:
            with answering(conn, READING_SECONDS_MAX):
                await cursor.execute(QUERIES["outbox_transactions"], {**values, "limit": None})
            while rows := await cursor.fetchmany(limit):
                yield [_transaction(row) for row in rows]


def _transaction(row: Sequence[object]) -> TransactionRow:
    return TransactionRow(*(int(str(value)) for value in row))


async def rows(conn: Connection, xids: Sequence[int], *, after: int = -1, limit: int | None = None) -> list[OutboxRow]:
    """Return the rows of transactions in the order they were written, from after a number on."""
    with translating(), answering(conn, READING_SECONDS_MAX):
        async with conn.cursor(row_factory=tuple_row) as cursor:
            cursor.adapters.register_loader("text", _Raw)
            values = {"xids": [str(xid) for xid in xids], "after": after, "limit": limit}
            await cursor.execute(QUERIES["outbox_rows"], values)
            found = await cursor.fetchall()
    return [OutboxRow(int(xid), number, shape, op.decode(), old, new) for xid, number, shape, op, old, new in found]


async def shapes(conn: Connection, numbers: Sequence[int]) -> list[ShapeRow]:
    """Return how tables looked, for those of these shapes that are known."""
    found = await fetch_all(conn, "outbox_shapes", shapes=list(numbers))
    return [
        ShapeRow(row["shape"], row["relation"], row["schema"], row["name"], [tuple(one) for one in row["columns"]])
        for row in found
    ]


async def say(conn: Connection, prefix: str, content: str) -> None:
    """Write a message as a transaction of its own: it is read after all that committed before."""
    await fetch_all(conn, "outbox_say", prefix=prefix, content=content)


async def say_at(conn: Connection, prefix: str) -> str:
    """
    Write an empty message as a transaction of its own, and return an LSN: what was seen before is in batches up to it.

    A batch begins where the WAL ends once its snapshot is taken, so each that ends above this LSN has all that.
    """
    row = await fetch_one(conn, "outbox_say_at", prefix=prefix)
    assert row is not None
    return str(row["lsn"])


async def done(conn: Connection, journal: str, number: int, snapshot: str, end_lsn: int) -> None:
    """Tell that everything of a batch, and before it, is durable here."""
    await fetch_all(conn, "outbox_done", journal=journal, number=number, snapshot=snapshot, end_lsn=format_lsn(end_lsn))


async def parts(conn: Connection) -> list[Part]:
    """Return the parts that hold something."""
    return [Part(row["part"], row["size_bytes"], row["written"]) for row in await fetch_all(conn, "outbox_parts")]


async def empty(conn: Connection, part: int) -> bool:
    """Empty a part of which nothing is needed; False where something is, or somebody is using it."""
    try:
        row = await fetch_one(conn, "outbox_empty", part=part)
    except SourceUnavailable as error:
        if state_of(error) == _BUSY:
            return False
        raise
    return row is not None and bool(row["emptied"])
