"""What the reader asks of the outbox: one reader, batches that are written down, parts that are emptied."""

from __future__ import annotations

import time

import psycopg
import pytest

from backend_watcher.errors import SlotMoved, SourceUnavailable
from backend_watcher.postgres import outbox, outbox_install
from backend_watcher.postgres.connect import Connection, connect

from .conftest import make

ROW = (
    "INSERT INTO watcher.outbox VALUES"
    " ({part}, nextval('watcher.outbox_number'), pg_current_xact_id(), 1, 'I', now(), NULL, '(1)')"
)


@pytest.fixture
async def reader(conn: Connection) -> Connection:
    """An outbox that is bound to the journal `j`."""
    await conn.execute(outbox_install.script(notify=False).encode())
    assert await outbox.bind(conn, "j", adopt=False)
    return conn


async def write(conn: Connection, part: int = 0) -> None:
    await make(conn, ROW.format(part=part))


async def test_it_is_bound_to_one_journal(reader: Connection) -> None:
    assert await outbox.bind(reader, "j", adopt=False)
    assert not await outbox.bind(reader, "k", adopt=False)
    assert await outbox.bind(reader, "k", adopt=True)
    assert (await outbox.state(reader)).journal == "k"


async def test_it_is_taken_by_one_session(reader: Connection, dsn: str) -> None:
    await outbox.take(reader)
    async with await connect(dsn, purpose="other") as other:
        with pytest.raises(SourceUnavailable, match="backend_watcher:test"):
            await outbox.take(other)


async def test_a_batch_is_begun_where_there_is_something_new_and_only_once(reader: Connection) -> None:
    assert await outbox.claim(reader, "j", 1, 1, (), 0) is None
    await write(reader)
    assert await outbox.claim(reader, "other", 1, 1, (), 0) is None, "fenced off"
    first = await outbox.claim(reader, "j", 1, 1, (), 0)
    assert first is not None
    with pytest.raises(SlotMoved, match="batch 1"):
        await outbox.claim(reader, "j", 1, 1, (), 0)
    xmax = int(first.snapshot.split(":")[1])
    assert await outbox.claim(reader, "j", 2, xmax, (), 0) is None
    await write(reader)
    second = await outbox.claim(reader, "j", 2, xmax, (), 1 << 60)
    assert second is not None
    assert second.start_lsn == 1 << 60, "never before the floor"
    assert await outbox.batches(reader) == [first, second]
    await outbox.done(reader, "j", 1, first.snapshot, first.start_lsn + 1)
    assert await outbox.batches(reader) == [second]
    state = await outbox.state(reader)
    assert (state.batch, state.snapshot, state.end_lsn) == (1, first.snapshot, first.start_lsn + 1)


async def test_the_transactions_of_a_batch_come_in_the_order_of_their_last_rows(reader: Connection, dsn: str) -> None:
    with psycopg.connect(dsn) as early:
        early.execute(ROW.format(part=0))
        await write(reader, 1)
        early.execute(ROW.format(part=2))
        running = int(str(early.execute("SELECT pg_current_xact_id()::text").fetchone()[0]))  # type: ignore[index]
        begun = await outbox.claim(reader, "j", 1, 1, (), 0)
        assert begun is not None
        pages = [page async for page in outbox.transactions(reader, 1, (), begun.snapshot)]
        assert [(one.rows, one.last_number) for page in pages for one in page] == [(1, 2)]
        early.commit()
    xmax = int(begun.snapshot.split(":")[1])
    later = await outbox.claim(reader, "j", 2, xmax, (running,), 0)
    assert later is not None
    ((one,),) = [page async for page in outbox.transactions(reader, xmax, (running,), later.snapshot)]
    assert (one.xid, one.rows, one.last_number, one.size_bytes) == (running, 2, 3, 6)
    rows = await outbox.rows(reader, [running])
    assert [(row.number, row.operation, row.new_row) for row in rows] == [(1, "I", b"(1)"), (3, "I", b"(1)")]
    assert await outbox.rows(reader, [running], after=1, limit=5) == rows[1:]


async def test_a_part_is_emptied_only_when_nothing_of_it_is_needed(reader: Connection, dsn: str) -> None:
    await write(reader, 3)
    begun = await outbox.claim(reader, "j", 1, 1, (), 0)
    assert begun is not None
    (part,) = await outbox.parts(reader)
    assert (part.part, part.written) == (3, False)
    assert not await outbox.empty(reader, 3), "not durable yet"
    await outbox.done(reader, "j", 1, begun.snapshot, begun.start_lsn + 1)
    with psycopg.connect(dsn) as writer:
        writer.execute(ROW.format(part=3))
        begun_at = time.monotonic()
        assert not await outbox.empty(reader, 3), "somebody writes into it"
        assert time.monotonic() - begun_at < 1
        writer.commit()
    assert not await outbox.empty(reader, 3), "there is something new"
    await make(reader, "DELETE FROM watcher.outbox WHERE number > 1")
    assert await outbox.empty(reader, 3)
    assert await outbox.parts(reader) == []


async def test_a_role_with_other_defaults_can_read(reader: Connection) -> None:
    await make(reader, "SET default_transaction_isolation = 'serializable'", ROW.format(part=1))
    await outbox.make_ready(reader)
    begun = await outbox.claim(reader, "j", 1, 1, (), 0)
    assert begun is not None
    await outbox.done(reader, "j", 1, begun.snapshot, begun.start_lsn + 1)
    assert await outbox.empty(reader, 1)


async def test_shapes_are_found_by_their_numbers(reader: Connection) -> None:
    await make(
        reader,
        *["INSERT INTO watcher.outbox_shape VALUES (5, 9, 'public', 'a', '[[\"id\", 20, -1, \"\"]]')"] * 2,
    )
    (shape,) = await outbox.shapes(reader, [5, 6])
    assert (shape.relation, shape.schema, shape.name, list(shape.columns)) == (9, "public", "a", [("id", 20, -1, "")])
