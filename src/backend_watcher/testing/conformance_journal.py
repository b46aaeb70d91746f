"""
What every journal must do: one test for each promise of `contracts.Journal`.

    class TestMyJournal(JournalConformance, RetentionConformance):
        @pytest.fixture
        def make(self, tmp_path):
            return lambda **options: MyJournal(tmp_path / "journal", **options)

`make` is called with any of `quota_bytes`, `retain_seconds`, `retain_bytes` (None or missing: no limit) and
`now` (gives seconds since 1970). Called again it gives a journal on the same storage, as after a restart.
The quota and retention are in `conformance_retention.py`.
"""

# ruff: noqa: D102 - the name of a test is its promise

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest

from backend_watcher.contracts import Identity, Journal
from backend_watcher.errors import JournalError, OutOfOrder, WrongCluster
from backend_watcher.events.position import START, Position
from backend_watcher.testing import builders
from backend_watcher.testing.chunks import ALL, ChunkMaker, ids, read_all

MakeJournal: TypeAlias = Callable[..., Journal]

WAIT_SECONDS = 20.0
IDENTITY = Identity(builders.STREAM.system_identifier, 1, builders.STREAM.slot, "watcher")


class JournalFixtures:
    """What both suites need."""

    @pytest.fixture
    def make(self) -> MakeJournal:
        """Return what makes a journal; see the top of this file."""
        raise NotImplementedError

    @pytest.fixture
    def chunk(self) -> ChunkMaker:
        """Return a maker of chunks."""
        return ChunkMaker()

    @asynccontextmanager
    async def opened(self, make: MakeJournal, **options: Any) -> AsyncIterator[Journal]:
        """Open a journal bound to the stream of the chunks, and close it."""
        journal = make(**{"quota_bytes": None, "retain_seconds": None, "retain_bytes": None} | options)
        await journal.open()
        try:
            if await journal.identity() is None:
                await journal.save_identity(IDENTITY, 0)
            yield journal
        finally:
            await journal.close()

    async def waits(self, journal: Journal, *tasks: asyncio.Task[None]) -> None:
        """Fail if one of the tasks is done although the journal did all it could."""
        for _ in range(3):
            await journal.flush()
        assert not any(task.done() for task in tasks)


class JournalConformance(JournalFixtures):
    """Subclass it in a file of tests, and override `make`."""

    # --- appending and reading ---

    async def test_a_new_journal_is_empty(self, make: MakeJournal) -> None:
        journal = make()
        await journal.open()
        assert await journal.read(START, ALL) == []
        assert journal.last_position == START
        assert journal.durable_lsn == 0
        assert await journal.identity() is None
        assert await journal.cursors() == {}
        assert await journal.get_note("any") is None
        state = await journal.state()
        assert (state.first, state.last, state.blocks, state.size_bytes) == (None, None, 0, 0)
        assert (state.oldest_time, state.full, state.durable_lsn) == (None, False, 0)
        await journal.close()

    async def test_what_is_appended_is_read(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        async with self.opened(make) as journal:
            one = chunk(3, name="pen")
            await journal.append(one)
            await journal.flush()
            (block,) = await journal.read(START, ALL)
            assert (block.first, block.last) == (one.first, one.last)
            assert block.tables == {"public.products"}
            assert [change.new for change in block.changes] == [
                {"id": number, "name": "pen", "stock": None} for number in (1, 2, 3)
            ]
            assert [change.position for change in block.changes] == [Position(chunk.lsn, at) for at in range(3)]
            assert block.changes[0].event_id == f"{IDENTITY.system_identifier}:{IDENTITY.slot}:0/1100:0"

    async def test_changes_are_read_in_the_order_they_were_appended(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        async with self.opened(make) as journal:
            for number in range(50):
                await journal.append(chunk(1 + number % 3))
            await journal.flush()
            for limit_bytes in (1, 200, ALL):
                assert ids(await read_all(journal, limit_bytes=limit_bytes)) == list(range(1, chunk.made + 1))

    async def test_a_read_returns_about_as_much_as_asked_and_at_least_one_block(
        self, make: MakeJournal, chunk: ChunkMaker
    ) -> None:
        async with self.opened(make) as journal:
            chunks = [chunk(5) for _ in range(6)]
            for one in chunks:
                await journal.append(one)
            await journal.flush()
            assert len(await journal.read(START, 1)) == 1
            assert len(await journal.read(START, 3 * len(chunks[1].payload))) == 3
            assert len(await journal.read(START, ALL)) == 6

    async def test_a_read_from_the_middle_of_a_block_returns_what_is_after_it(
        self, make: MakeJournal, chunk: ChunkMaker
    ) -> None:
        async with self.opened(make) as journal:
            for _ in range(2):
                await journal.append(chunk(10))
            await journal.flush()
            everything = await read_all(journal)
            for number, change in enumerate(everything):
                assert ids(await read_all(journal, change.position)) == ids(everything[number + 1 :])
            # The shared block is still whole.
            assert len(await read_all(journal)) == 20

    async def test_a_read_after_the_end_returns_nothing(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        async with self.opened(make) as journal:
            await journal.append(chunk())
            await journal.flush()
            assert await journal.read(journal.last_position, ALL) == []
            assert await journal.read(Position(chunk.lsn + 1, 0), ALL) == []

    async def test_a_position_between_blocks_is_enough(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        async with self.opened(make) as journal:
            first, second = chunk(2), chunk(2)
            await journal.append(first)
            await journal.append(second)
            await journal.flush()
            assert ids(await read_all(journal, Position(first.last.commit_lsn, 99))) == [3, 4]

    async def test_a_chunk_again_is_out_of_order(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        async with self.opened(make) as journal:
            first, second, third = chunk(2), chunk(2), chunk(2)
            await journal.append(first)
            await journal.append(second)
            for again in (second, first):
                with pytest.raises(OutOfOrder):
                    await journal.append(again)
            await journal.flush()
            with pytest.raises(OutOfOrder):
                await journal.append(second)
            await journal.append(third)
            await journal.flush()
            assert ids(await read_all(journal)) == [1, 2, 3, 4, 5, 6]
        async with self.opened(make) as journal:
            with pytest.raises(OutOfOrder):
                await journal.append(third)

    async def test_many_threads_and_loops_may_append(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        turn = threading.Lock()

        async with self.opened(make) as journal:

            async def some() -> None:
                for _ in range(20):
                    with turn:
                        await journal.append(chunk())

            await asyncio.gather(*(asyncio.to_thread(asyncio.run, some()) for _ in range(4)))
            await journal.flush()
            assert ids(await read_all(journal)) == list(range(1, 81))

    async def test_many_readers_share_a_block(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        async with self.opened(make) as journal:
            await journal.append(chunk(3))
            await journal.flush()
            (one,), (other,) = await journal.read(START, ALL), await journal.read(START, ALL)
            assert one.changes[0] is other.changes[0]
        async with self.opened(make) as journal:
            (one,), (other,) = await journal.read(START, ALL), await journal.read(START, ALL)
            assert one.changes[0] is other.changes[0]

    # --- durable ---

    async def test_only_a_whole_transaction_moves_the_durable_lsn(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        async with self.opened(make) as journal:
            half = chunk(2, commit=False)
            await journal.append(half)
            await journal.flush()
            assert journal.durable_lsn == 0
            assert journal.last_position == half.last
            rest = chunk(2)
            await journal.append(rest)
            await journal.flush()
            assert journal.durable_lsn == rest.commit_end_lsn == chunk.lsn + 8
            assert journal.last_position == rest.last == Position(chunk.lsn, 3)

    async def test_advance_moves_the_durable_lsn_and_never_back(self, make: MakeJournal) -> None:
        async with self.opened(make) as journal:
            for lsn in (100, 50, 200, 0):
                await journal.advance(lsn)
                await journal.flush()
            assert journal.durable_lsn == 200
            assert (await journal.state()).durable_lsn == 200
            assert journal.last_position == START
        async with self.opened(make) as journal:
            assert journal.durable_lsn == 200

    async def test_the_durable_lsn_never_passes_a_chunk_appended_before(
        self, make: MakeJournal, chunk: ChunkMaker
    ) -> None:
        async with self.opened(make) as journal:
            seen: list[tuple[int, Position]] = []
            journal.listen(lambda: seen.append((journal.durable_lsn, journal.last_position)))
            expected = {}
            for _ in range(30):
                one = chunk()
                await journal.append(one)
                await journal.advance(one.commit_end_lsn + 16)
                expected[one.commit_end_lsn + 16] = one.last
            await journal.flush()
            assert seen[-1] == (one.commit_end_lsn + 16, one.last)
            for lsn, last in seen:
                for noted, position in expected.items():
                    assert lsn < noted or last >= position

    async def test_a_listener_hears_of_each_group_after_it_is_durable(
        self, make: MakeJournal, chunk: ChunkMaker
    ) -> None:
        async with self.opened(make) as journal:
            loop, heard = asyncio.get_running_loop(), asyncio.Event()
            seen: list[Position] = []

            def listener() -> None:
                seen.append(journal.last_position)
                loop.call_soon_threadsafe(heard.set)

            journal.listen(listener)
            for _ in range(5):
                heard.clear()
                one = chunk()
                await journal.append(one)
                while journal.last_position < one.last:
                    await asyncio.wait_for(heard.wait(), WAIT_SECONDS)
                    heard.clear()
                await journal.flush()
                assert seen[-1] == one.last

    async def test_a_listener_that_ended_hears_nothing(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        async with self.opened(make) as journal:
            heard: list[str] = []
            ends = [journal.listen(lambda: heard.append("a")), journal.listen(lambda: heard.append("b"))]
            await journal.append(chunk())
            await journal.flush()
            assert {"a", "b"} == set(heard)
            ends[0]()
            ends[0]()
            heard.clear()
            await journal.append(chunk())
            await journal.flush()
            assert set(heard) == {"b"}

    async def test_a_listener_that_fails_harms_nobody(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        async with self.opened(make) as journal:
            heard: list[int] = []

            def fail() -> None:
                raise ValueError("a listener of a test fails")

            journal.listen(fail)
            journal.listen(lambda: heard.append(journal.durable_lsn))
            for _ in range(3):
                await journal.append(chunk())
                await journal.flush()
            assert chunk.lsn + 8 in heard

    async def test_everything_survives_a_restart(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        async with self.opened(make) as journal:
            for _ in range(5):
                await journal.append(chunk(2))
            # Closing flushes.
        async with self.opened(make) as journal:
            assert ids(await read_all(journal)) == list(range(1, 11))
            assert journal.last_position == Position(chunk.lsn, 1)
            assert journal.durable_lsn == chunk.lsn + 8
            await journal.append(chunk(2))
            await journal.flush()
            assert ids(await read_all(journal)) == list(range(1, 13))
            assert (await journal.state()).blocks == 6

    async def test_a_change_has_the_same_event_id_after_a_restart(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        async with self.opened(make) as journal:
            await journal.append(chunk(2))
            await journal.flush()
            before = [change.event_id for change in await read_all(journal)]
        async with self.opened(make) as journal:
            assert [change.event_id for change in await read_all(journal)] == before
            await journal.append(chunk(1))
            await journal.flush()
            newest = (await read_all(journal))[-1]
        assert newest.event_id.startswith(f"{IDENTITY.system_identifier}:{IDENTITY.slot}:")

    async def test_rows_of_an_old_shape_are_read_in_that_shape(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        async with self.opened(make) as journal:
            await journal.append(chunk(2))
            chunk.table = builders.table(columns={"id": "int8", "name": "text", "colour": "text"})
            await journal.append(chunk(2))
            await journal.flush()
            before = [change.new.keys() for change in await read_all(journal) if change.new is not None]
        async with self.opened(make) as journal:
            after = [change.new.keys() for change in await read_all(journal) if change.new is not None]
        assert before == after == [["id", "name", "stock"]] * 2 + [["id", "name", "colour"]] * 2

    async def test_closing_twice_is_closing_once(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        journal = make()
        await journal.close()
        await journal.open()
        await journal.close()
        await journal.close()
        with pytest.raises(JournalError):
            await journal.append(chunk())

    # --- cursors, identity, notes ---

    async def test_a_cursor_never_moves_back(self, make: MakeJournal) -> None:
        async with self.opened(make) as journal:
            journal.save_cursor("a", Position(20, 1))
            journal.save_cursor("a", Position(20, 0))
            journal.save_cursor("a", Position(10, 5))
            journal.save_cursor("b", Position(5, 0))
            await journal.flush()
            journal.save_cursor("a", Position(19, 9))
            await journal.flush()
            assert await journal.cursors() == {"a": Position(20, 1), "b": Position(5, 0)}
        async with self.opened(make) as journal:
            journal.save_cursor("a", Position(19, 9))
            assert await journal.cursors() == {"a": Position(20, 1), "b": Position(5, 0)}

    async def test_a_cursor_at_the_start_is_a_cursor(self, make: MakeJournal) -> None:
        async with self.opened(make) as journal:
            journal.save_cursor("a", START)
        async with self.opened(make) as journal:
            assert await journal.cursors() == {"a": START}

    async def test_a_forgotten_cursor_may_begin_again_earlier(self, make: MakeJournal) -> None:
        async with self.opened(make) as journal:
            journal.save_cursor("a", Position(20, 1))
            journal.save_cursor("b", Position(20, 1))
            await journal.flush()
            journal.forget_cursor("a")
            journal.forget_cursor("unknown")
            journal.forget_cursor("b")
            journal.save_cursor("b", Position(3, 0))
            await journal.flush()
        async with self.opened(make) as journal:
            assert await journal.cursors() == {"b": Position(3, 0)}

    async def test_a_cursor_may_be_saved_from_any_thread(self, make: MakeJournal) -> None:
        async with self.opened(make) as journal:

            def save(name: str) -> None:
                for lsn in range(200):
                    journal.save_cursor(name, Position(lsn, 0))

            await asyncio.gather(*(asyncio.to_thread(save, name) for name in "abcd"))
        async with self.opened(make) as journal:
            assert await journal.cursors() == dict.fromkeys("abcd", Position(199, 0))

    async def test_the_identity_is_kept(self, make: MakeJournal) -> None:
        journal = make()
        await journal.open()
        await journal.save_identity(IDENTITY, 0x5000)
        assert await journal.identity() == IDENTITY
        assert journal.durable_lsn == 0x5000
        assert journal.last_position == START
        await journal.close()
        async with self.opened(make) as journal:
            assert await journal.identity() == IDENTITY
            assert journal.durable_lsn == 0x5000
            moved = Identity(IDENTITY.system_identifier, 2, "other", "other")
            await journal.save_identity(moved, 0)
            assert await journal.identity() == moved
            assert journal.durable_lsn == 0x5000

    async def test_a_journal_is_never_bound_to_another_cluster(self, make: MakeJournal) -> None:
        async with self.opened(make) as journal:
            with pytest.raises(WrongCluster):
                await journal.save_identity(Identity("1", 1, "s", "p"), 0)
            assert await journal.identity() == IDENTITY

    async def test_notes_are_kept(self, make: MakeJournal) -> None:
        async with self.opened(make) as journal:
            await journal.set_note("a", "1")
            await journal.set_note("b", "2")
            await journal.set_note("a", "")
            await journal.set_note("b", None)
            await journal.set_note("c", None)
            assert [await journal.get_note(name) for name in "abc"] == ["", None, None]
        async with self.opened(make) as journal:
            assert [await journal.get_note(name) for name in "abc"] == ["", None, None]
