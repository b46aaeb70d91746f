"""The replication connection on a real server: bytes in, feedback out."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.errors import (
    PublicationLost,
    SourceRefused,
    SourceUnavailable,
    UndecodableChange,
    WatcherError,
)
from backend_watcher.postgres import catalog, publications, slots
from backend_watcher.postgres.connect import Connection, connect
from backend_watcher.postgres.replication import AT_CHANGE, Received, ReplicationStream, fork_of

from .conftest import make
from .test_names import HOSTILE

LIMIT = 1 << 20
PATIENCE_SECONDS = 20.0


@pytest.fixture(autouse=True)
async def free_slots(conn: Connection) -> AsyncIterator[None]:
    """A walsender outlives its client for a moment; no test leaves before that is over."""
    yield
    query = "SELECT count(*) FROM pg_replication_slots WHERE active AND database = current_database()"
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await (await conn.execute(query)).fetchone() != (0,):
            pass


@pytest.fixture
async def stream(dsn: str, free_slots: None) -> AsyncIterator[ReplicationStream]:
    stream = ReplicationStream(dsn)
    yield stream
    await stream.close()


async def begin(conn: Connection, stream: ReplicationStream, publication: str = "shop") -> str:
    """Publish table `a`, make a slot, and stream from it; return the slot."""
    slot = f"s_{secrets.token_hex(4)}"
    await make(conn, "CREATE TABLE a (id int PRIMARY KEY, name text)")
    await publications.create(conn, publication, list((await catalog.tables(conn, ["a"])).values()))
    await stream.open()
    lsn = await slots.create(conn, slot)
    await stream.start(slot, lsn, publication)
    return slot


async def receive(stream: ReplicationStream, count: int = 1, limit: int = LIMIT) -> list[bytes]:
    """Return the logical messages that arrive, until there are `count` or more."""
    messages: list[bytes] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(messages) < count:
            await stream.wait()
            received = stream.receive(limit)
            assert sum(received.sizes) == len(received.data)
            at = 0
            for size in received.sizes:
                message = received.data[at : at + size]
                assert message[:1] == b"w"
                messages.append(message[25:])
                at += size
    return messages


def kinds(messages: list[bytes]) -> str:
    return b"".join(message[:1] for message in messages).decode()


async def test_it_says_who_the_server_is(conn: Connection, stream: ReplicationStream) -> None:
    identity = await stream.open()
    server = await catalog.server(conn)
    assert (identity.system_identifier, identity.timeline) == (server.system_identifier, server.timeline)
    assert identity.database == server.database
    assert 0 < identity.flush_lsn <= server.flush_lsn
    [sender] = [s for s in await slots.walsenders(conn) if s.pid == stream.backend_pid] or [None]
    assert sender is None or sender.application_name == "backend_watcher:capture"


async def test_rows_arrive_and_confirming_them_moves_the_slot(conn: Connection, stream: ReplicationStream) -> None:
    slot = await begin(conn, stream)
    await make(conn, "INSERT INTO a VALUES (1, 'x'), (2, 'y')")
    messages = await receive(stream, 5)
    assert kinds(messages) == "BRIIC"
    end = int.from_bytes(messages[-1][10:18], "big")
    before = await slots.look(conn, slot)
    assert before is not None
    assert before.confirmed_flush_lsn is not None
    assert before.confirmed_flush_lsn < end
    stream.confirm(end, end, before.confirmed_flush_lsn)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (facts := await slots.look(conn, slot)) is None or facts.confirmed_flush_lsn != end:
            pass
    [sender] = await slots.walsenders(conn, pid=stream.backend_pid)
    assert (sender.write_lsn, sender.flush_lsn, sender.replay_lsn) == (end, end, before.confirmed_flush_lsn)


async def test_what_comes_with_the_answer_needs_no_wake_up(conn: Connection, dsn: str) -> None:
    # libpq reads ahead: mostly the first rows lie in its buffer when the stream begins, and the socket is silent.
    await make(conn, "CREATE TABLE a (id int PRIMARY KEY)")
    await publications.create(conn, "shop", list((await catalog.tables(conn, ["a"])).values()))
    for number in range(8):
        lsn = await slots.create(conn, slot := f"s_{secrets.token_hex(4)}")
        await make(conn, f"INSERT INTO a VALUES ({number})")
        stream = ReplicationStream(dsn)
        await stream.open()
        await stream.start(slot, lsn, "shop")
        async with asyncio.timeout(5):
            assert kinds(await receive(stream, 4)) == "BRIC"
        await stream.close()


async def test_much_is_taken_in_bounded_pieces(conn: Connection, stream: ReplicationStream) -> None:
    await begin(conn, stream)
    await make(conn, "INSERT INTO a SELECT g, repeat('x', 100) FROM generate_series(1, 3000) g")
    messages: list[bytes] = []
    largest = 0
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not messages or messages[-1][:1] != b"C":
            await stream.wait()
            received = stream.receive(2000)
            largest = max(largest, len(received.data))
            at = 0
            for size in received.sizes:
                messages.append(received.data[at + 25 : at + size])
                at += size
    assert kinds(messages) == "BR" + "I" * 3000 + "C"
    assert 2000 <= largest < 2400


async def test_nothing_to_receive_is_nothing_and_does_not_wait(conn: Connection, stream: ReplicationStream) -> None:
    await begin(conn, stream)
    stream._more = False
    received = stream.receive(LIMIT)
    assert (received.data, received.sizes, received.ended) == (b"", [], False)


async def test_a_keepalive_says_how_far_the_server_is(dsn: str, conn: Connection) -> None:
    stream = ReplicationStream(f"{dsn}?options=-c%20wal_sender_timeout%3D400ms")
    await begin(conn, stream)
    seen: list[Received] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not any(received.reply_requested for received in seen):
            await stream.wait()
            seen.append(stream.receive(LIMIT))
    assert seen[-1].keepalive_lsn > 0
    assert seen[-1].sizes == []
    await stream.close()


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_publications_are_only_names(conn: Connection, stream: ReplicationStream, name: str) -> None:
    await begin(conn, stream, name)
    await make(conn, "INSERT INTO a VALUES (1, 'x')")
    assert kinds(await receive(stream, 4)) == "BRIC"


async def test_a_publication_that_is_gone_is_fatal_on_every_version(
    conn: Connection, stream: ReplicationStream
) -> None:
    await begin(conn, stream)
    await make(conn, "DROP PUBLICATION shop", "INSERT INTO a VALUES (1)")
    with pytest.raises(PublicationLost, match="shop"):
        await receive(stream)


@pytest.mark.parametrize(
    ("severity", "state", "text", "lost"),
    [
        ("WARNING", "01000", 'skipped loading publication "shop"', True),
        ("WARNING", "55000", "Publikation »shop« wird übersprungen", True),
        ("WARNING", "01000", "something else", False),
        ("NOTICE", "55000", "something else", False),
    ],
)
async def test_the_warning_is_known_by_its_code_in_any_language(
    conn: Connection, stream: ReplicationStream, severity: str, state: str, text: str, lost: bool
) -> None:
    await begin(conn, stream)

    class Notice:
        severity_nonlocalized = severity
        sqlstate = state
        message_primary = text

    stream._note(Notice())  # type: ignore[arg-type]
    if lost:
        with pytest.raises(PublicationLost):
            stream.receive(LIMIT)
    else:
        stream.receive(LIMIT)


async def test_what_the_server_cannot_decode_is_told_with_its_place(
    conn: Connection, stream: ReplicationStream
) -> None:
    if conn.info.server_version < 150_000:
        pytest.skip("row filters came with PostgreSQL 15")
    await make(conn, "CREATE TABLE b (id int PRIMARY KEY)", "CREATE PUBLICATION odd FOR TABLE b WHERE (1 / id > 0)")
    await stream.open()
    lsn = await slots.create(conn, slot := f"s_{secrets.token_hex(4)}")
    await stream.start(slot, lsn, "odd")
    await make(conn, "INSERT INTO b VALUES (0)")
    with pytest.raises(UndecodableChange, match="division by zero"):
        await receive(stream)


async def test_a_walsender_that_is_ended_is_unavailable(conn: Connection, stream: ReplicationStream) -> None:
    await begin(conn, stream)
    await conn.execute("SELECT pg_terminate_backend(%s, 10000)", [stream.backend_pid])
    with pytest.raises(SourceUnavailable, match="terminating connection"):
        await receive(stream)


async def test_a_broken_connection_is_unavailable_whatever_is_asked_of_it(
    conn: Connection, stream: ReplicationStream
) -> None:
    await begin(conn, stream)
    assert stream._connection is not None
    stream._connection.pgconn.finish()
    for ask in (lambda: stream.receive(LIMIT), lambda: stream.confirm(1, 1, 1)):
        with pytest.raises(WatcherError) as caught:
            ask()
        assert isinstance(caught.value, SourceUnavailable)
    stream._more = False
    with pytest.raises(SourceUnavailable):
        await stream.wait()


async def test_a_slot_that_does_not_exist_and_one_in_use(conn: Connection, stream: ReplicationStream, dsn: str) -> None:
    slot = await begin(conn, stream)
    other = ReplicationStream(dsn)
    await other.open()
    with pytest.raises(SourceRefused, match="does not exist"):
        await other.start("no_such_slot", 0, "shop")
    with pytest.raises(SourceUnavailable, match="active for PID"):
        await other.start(slot, 0, "shop")
    await other.close()


async def test_bytes_that_are_no_replication_message_are_refused(conn: Connection, stream: ReplicationStream) -> None:
    await begin(conn, stream)

    class Odd:
        def get_copy_data(self, _: int) -> tuple[int, memoryview]:
            return 5, memoryview(b"x1234")

    class Wrapped:
        pgconn = Odd()

    real, stream._connection = stream._connection, Wrapped()  # type: ignore[assignment]
    with pytest.raises(SourceRefused, match="5 bytes that is no keepalive"):
        stream.receive(LIMIT)
    stream._connection = real


async def test_closed_twice_the_slot_is_free(conn: Connection, stream: ReplicationStream) -> None:
    slot = await begin(conn, stream)
    await stream.close()
    await stream.close()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (facts := await slots.look(conn, slot)) is None or facts.active:
            pass


def test_where_a_history_left_another_timeline() -> None:
    history = "1\t0/3000148\tno recovery target specified\n\n2\tA/B000000\tbefore 2026-01-01\n"
    assert [fork_of(history, timeline) for timeline in (1, 2, 3)] == [0x3000148, 0xA0B000000, None]
    assert fork_of("", 1) is None


async def test_a_timeline_that_the_server_does_not_know_is_refused(stream: ReplicationStream) -> None:
    await stream.open()
    with pytest.raises(WatcherError):
        await stream.fork_lsn(99, 1)


async def test_every_notice_is_told(conn: Connection, stream: ReplicationStream) -> None:
    told: list[bool] = []
    stream.listen(lambda: told.append(True))
    await stream.open()
    assert stream._connection is not None
    await stream._connection.execute("DO $$ BEGIN RAISE NOTICE 'hear'; END $$")
    assert told


@pytest.mark.parametrize(
    ("context", "at"),
    [
        ('slot "s", output plugin "pgoutput", in the change callback, associated LSN 0/1E8E8B8', "0/1E8E8B8"),
        ('slot "s", output plugin "pgoutput", in the stream_change callback, associated LSN 1F/A0', "1F/A0"),
        ('Slot \u00bbs\u00ab, Ausgabe-Plugin "pgoutput", im Callback change, zugeh\u00f6rige LSN 0/10.', "0/10"),
        ('slot "pgoutput", output plugin "wal2json", in the startup callback', None),
        ('slot "s", output plugin "pgoutput", in the startup callback', None),
        ("", None),
    ],
)
def test_a_change_that_cannot_be_sent_is_known_by_its_context(context: str, at: str | None) -> None:
    found = AT_CHANGE.search(context)
    assert (found[1] if found else None) == at


async def test_what_was_sent_before_a_change_that_cannot_be_sent_counts(
    server: EmbeddedPostgres, conn: Connection
) -> None:
    """A character of EUC_JP that has no place in UTF-8, behind a row that has."""
    await conn.execute("CREATE DATABASE jp ENCODING 'EUC_JP' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    dsn = f"{server.dsn.rpartition('/')[0]}/jp"
    try:
        async with await connect(dsn, purpose="test") as there:
            stream = ReplicationStream(dsn)
            slot = await begin(there, stream)
            await make(there, "INSERT INTO a VALUES (1, 'x'), (2, E'\\365\\241')")
            sizes: list[int] = []

            async def receive_all() -> None:
                while True:
                    await stream.wait()
                    sizes.extend(stream.receive(LIMIT).sizes)

            with pytest.raises(UndecodableChange, match="22P05") as caught:
                await asyncio.wait_for(receive_all(), PATIENCE_SECONDS)
            await stream.close()
            assert len(sizes) == 3, "Begin, Relation, Insert"
            assert caught.value.change_lsn > 0
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await (await conn.execute("SELECT 1 FROM pg_replication_slots WHERE active")).fetchone():
                    pass
            await slots.drop(there, slot)
    finally:
        await conn.execute("DROP DATABASE jp WITH (FORCE)")
