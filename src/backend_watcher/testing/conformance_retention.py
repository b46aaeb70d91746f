"""What every journal must do about its quota and retention; see `conformance_journal.py`."""

# ruff: noqa: D102 - the name of a test is its promise

from __future__ import annotations

import asyncio

import pytest

from backend_watcher.errors import JournalError
from backend_watcher.events.position import START, Position
from backend_watcher.testing.chunks import ChunkMaker, ids, read_all
from backend_watcher.testing.conformance_journal import WAIT_SECONDS, JournalFixtures, MakeJournal


class RetentionConformance(JournalFixtures):
    """Subclass it in a file of tests, and override `make`."""

    async def test_at_the_quota_an_append_waits_for_a_cursor(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        chunks = [chunk(5) for _ in range(6)]
        quota_bytes = sum(len(one.payload) for one in chunks[:3])
        async with self.opened(make, quota_bytes=quota_bytes) as journal:
            journal.save_cursor("slow", START)
            for one in chunks[:3]:
                await journal.append(one)
            await journal.flush()
            assert not (await journal.state()).full
            waiting = [asyncio.create_task(journal.append(one)) for one in chunks[3:]]
            advanced = asyncio.create_task(journal.advance(chunk.lsn + 99))
            await asyncio.gather(*(asyncio.to_thread(int) for _ in range(3)))
            await self.waits(journal, *waiting, advanced)
            assert (await journal.state()).full
            assert journal.durable_lsn == chunks[2].commit_end_lsn
            assert len(await read_all(journal)) == 15
            journal.save_cursor("slow", chunks[0].last)
            await asyncio.wait_for(waiting[0], WAIT_SECONDS)
            await self.waits(journal, *waiting[1:], advanced)
            journal.save_cursor("slow", chunks[2].last)
            await asyncio.wait_for(asyncio.gather(*waiting, advanced), WAIT_SECONDS)
            await journal.flush()
            assert ids(await read_all(journal, chunks[2].last)) == list(range(16, 31))
            assert journal.durable_lsn == chunk.lsn + 99
            for _ in range(3):
                await journal.flush()
            state = await journal.state()
            assert not state.full
            assert state.size_bytes <= quota_bytes

    async def test_at_the_quota_what_is_behind_every_cursor_makes_room(
        self, make: MakeJournal, chunk: ChunkMaker
    ) -> None:
        chunks = [chunk(5) for _ in range(20)]
        quota_bytes = sum(len(one.payload) for one in chunks[:3])
        async with self.opened(make, quota_bytes=quota_bytes) as journal:
            for one in chunks:
                await asyncio.wait_for(journal.append(one), WAIT_SECONDS)
                await journal.flush()
                assert (await journal.state()).size_bytes <= quota_bytes
                journal.save_cursor("quick", one.last)
            assert journal.last_position == chunks[-1].last

    async def test_forgetting_the_slow_subscription_makes_room(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        chunks = [chunk(5) for _ in range(2)]
        async with self.opened(make, quota_bytes=len(chunks[0].payload) + 1) as journal:
            journal.save_cursor("slow", START)
            journal.save_cursor("quick", chunks[0].last)
            await journal.append(chunks[0])
            waiting = asyncio.create_task(journal.append(chunks[1]))
            await asyncio.to_thread(int)
            await self.waits(journal, waiting)
            journal.forget_cursor("slow")
            await asyncio.wait_for(waiting, WAIT_SECONDS)

    async def test_a_chunk_larger_than_the_quota_goes_in_alone(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        async with self.opened(make, quota_bytes=10) as journal:
            one, other = chunk(5), chunk(5)
            journal.save_cursor("a", START)
            await asyncio.wait_for(journal.append(one), WAIT_SECONDS)
            waiting = asyncio.create_task(journal.append(other))
            await asyncio.to_thread(int)
            await self.waits(journal, waiting)
            journal.save_cursor("a", one.last)
            await asyncio.wait_for(waiting, WAIT_SECONDS)
            await journal.flush()
            assert len(await read_all(journal, one.last)) == 5

    async def test_an_append_cancelled_while_it_waits_was_not_appended(
        self, make: MakeJournal, chunk: ChunkMaker
    ) -> None:
        async with self.opened(make, quota_bytes=10) as journal:
            one, other = chunk(5), chunk(5)
            journal.save_cursor("a", START)
            await journal.append(one)
            waiting = asyncio.create_task(journal.append(other))
            await asyncio.to_thread(int)
            await self.waits(journal, waiting)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            journal.save_cursor("a", one.last)
            await journal.flush()
            assert journal.last_position == one.last
            await asyncio.wait_for(journal.append(other), WAIT_SECONDS)

    async def test_closing_turns_away_who_waits(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        one, other = chunk(5), chunk(5)
        async with self.opened(make, quota_bytes=10) as journal:
            journal.save_cursor("a", START)
            await journal.append(one)
            waiting = asyncio.create_task(journal.append(other))
            await asyncio.to_thread(int)
            await self.waits(journal, waiting)
        with pytest.raises(JournalError):
            await asyncio.wait_for(waiting, WAIT_SECONDS)
        async with self.opened(make) as journal:
            assert journal.last_position == one.last

    async def test_retention_by_age_spares_what_a_cursor_needs(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        time = [1000.0]
        async with self.opened(make, retain_seconds=60.0, now=lambda: time[0]) as journal:
            journal.save_cursor("a", START)
            chunks = []
            for _ in range(4):
                chunks.append(chunk(3))
                await journal.append(chunks[-1])
                await journal.flush()
                time[0] += 10
            state = await journal.state()
            assert (state.oldest_time, state.first, state.last) == (1000.0, chunks[0].first, chunks[-1].last)
            time[0] = 1061.0
            await journal.advance(chunk.lsn + 50)
            await journal.flush()
            assert len(await read_all(journal)) == 12
            # A cursor inside the second block: the first is behind it, the second is not.
            time[0] = 1100.0
            journal.save_cursor("a", Position(chunks[1].first.commit_lsn, 1))
            await journal.flush()
            assert ids(await read_all(journal)) == list(range(4, 13))
            state = await journal.state()
            assert (state.oldest_time, state.blocks, state.first) == (1010.0, 3, chunks[1].first)
            assert state.size_bytes == sum(len(one.payload) for one in chunks[1:])

    async def test_retention_keeps_what_is_young_and_within_bounds(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        async with self.opened(make, retain_seconds=60.0, retain_bytes=1 << 20, now=lambda: 5.0) as journal:
            for _ in range(3):
                await journal.append(chunk(3))
            await journal.flush()
            journal.save_cursor("a", journal.last_position)
            await journal.flush()
            assert len(await read_all(journal)) == 9

    async def test_retention_by_bytes_spares_what_a_cursor_needs(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        chunks = [chunk(3) for _ in range(6)]
        async with self.opened(make, retain_bytes=2 * len(chunks[5].payload)) as journal:
            journal.save_cursor("a", START)
            for one in chunks:
                await journal.append(one)
            await journal.flush()
            assert len(await read_all(journal)) == 18
            journal.save_cursor("a", chunks[1].last)
            await journal.flush()
            assert ids(await read_all(journal)) == list(range(7, 19))
            journal.save_cursor("a", chunks[5].last)
            await journal.flush()
            assert ids(await read_all(journal)) == list(range(13, 19))

    async def test_without_any_cursor_retention_alone_decides(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        chunks = [chunk(3) for _ in range(6)]
        async with self.opened(make, retain_bytes=2 * len(chunks[5].payload)) as journal:
            for one in chunks:
                await journal.append(one)
            await journal.flush()
            assert ids(await read_all(journal)) == list(range(13, 19))

    async def test_without_any_cursor_the_quota_drops_nothing(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        one, other = chunk(3), chunk(3)
        async with self.opened(make, quota_bytes=len(one.payload) + 1) as journal:
            await journal.append(one)
            waiting = asyncio.create_task(journal.append(other))
            await asyncio.to_thread(int)
            await self.waits(journal, waiting)
            assert len(await read_all(journal)) == 3
            journal.save_cursor("a", one.last)
            await asyncio.wait_for(waiting, WAIT_SECONDS)

    async def test_an_emptied_journal_knows_where_it_stood(self, make: MakeJournal, chunk: ChunkMaker) -> None:
        time = [1000.0]
        async with self.opened(make, retain_seconds=60.0, now=lambda: time[0]) as journal:
            await journal.append(chunk(3))
            await journal.flush()
            time[0] = 2000.0
            await journal.flush()
            assert await read_all(journal) == []
        async with self.opened(make) as journal:
            assert journal.last_position == Position(chunk.lsn, 2)
            assert journal.durable_lsn == chunk.lsn + 8
            state = await journal.state()
            assert (state.first, state.last, state.blocks) == (None, Position(chunk.lsn, 2), 0)
            assert (state.size_bytes, state.oldest_time) == (0, None)
            await journal.append(chunk(2))
            await journal.flush()
            assert ids(await read_all(journal)) == [4, 5]
