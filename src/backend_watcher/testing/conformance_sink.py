"""
What every sink must do: one test for each promise of `contracts.Sink`.

    class TestMySink(SinkConformance):
        @pytest.fixture
        def make(self):
            return lambda: MySink(...)

        @pytest.fixture
        def read(self, ...):
            async def read():
                return {1: "name of row 1", ...}    # what somebody on the other side sees now
            return read

Rows have the columns `id`, `name` and `stock`. A sink that keeps changes rather than rows reads with `visible`.
Override `unreachable` with what makes a sink whose other side does not answer, and `secret` with a password that `make`
gives it.
"""

# ruff: noqa: D102 - the name of a test is its promise

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

import pytest

from backend_watcher.contracts import Receipt, Sink
from backend_watcher.errors import SinkUnavailable
from backend_watcher.events.change import Change
from backend_watcher.testing import builders

MakeSink: TypeAlias = Callable[[], Sink]
Seen: TypeAlias = Mapping[int, str]
Read: TypeAlias = Callable[[], Awaitable[Seen]]

PRODUCTS = builders.table()

MANY = 2_500
"""Changes in a large batch: more than any sink should send in one piece."""


def insert(at: int, key: int, name: str) -> Change:
    """Make a new row, at position `at`."""
    return builders.change("insert", PRODUCTS, new={"id": key, "name": name, "stock": 0}, lsn=at)


def update(at: int, key: int, name: str, before: int | None = None) -> Change:
    """Make an update; `before` is the key the row had."""
    old = None if before is None else {"id": before}
    return builders.change("update", PRODUCTS, new={"id": key, "name": name, "stock": 0}, old=old, lsn=at)


def delete(at: int, key: int) -> Change:
    """Make a delete."""
    return builders.change("delete", PRODUCTS, old={"id": key}, lsn=at)


def truncate(at: int) -> Change:
    """Make a truncate."""
    return builders.change("truncate", PRODUCTS, lsn=at)


def visible(changes: Iterable[Change]) -> dict[int, str]:
    """Return the names by key after these changes, in the order they came."""
    names: dict[int, str] = {}
    for change in changes:
        if change.operation == "truncate":
            names.clear()
        elif change.operation == "delete":
            names.pop(change.key[0], None)
        else:
            names.pop((change.key_before or (None,))[0], None)
            names[change.key[0]] = change.row["name"]
    return names


@asynccontextmanager
async def opened(make: MakeSink) -> AsyncIterator[Sink]:
    """Open a sink, and close it."""
    sink = make()
    await sink.open()
    try:
        yield sink
    finally:
        await sink.close()


class SinkConformance:
    """Subclass it in a file of tests, and override `make` and `read`."""

    @pytest.fixture
    def make(self) -> MakeSink:
        """Return what makes a sink on the same other side each time; see the top of this file."""
        raise NotImplementedError

    @pytest.fixture
    def read(self) -> Read:
        """Return what reads the names by key from the other side."""
        raise NotImplementedError

    @pytest.fixture
    def unreachable(self) -> MakeSink | None:
        """Return what makes a sink whose other side does not answer, if there is such a thing."""
        return None

    @pytest.fixture
    def secret(self) -> str | None:
        """Return a text that nobody may be shown."""
        return None

    async def settles(self, sink: Sink, *batches: Sequence[Change]) -> None:
        """Write batches one after the other until they are durable."""
        for batch in batches:
            receipt = await sink.write(batch)
            assert receipt in (Receipt.DURABLE, Receipt.ACCEPTED)
        await sink.flush()

    def test_it_has_all_parts_of_a_sink(self, make: MakeSink) -> None:
        assert isinstance(make(), Sink)

    def test_it_says_what_it_is(self, make: MakeSink, secret: str | None) -> None:
        described = make().describe()
        assert isinstance(described["kind"], str)
        assert secret is None or secret not in json.dumps(described)

    async def test_it_closes_twice_and_without_open(self, make: MakeSink) -> None:
        sink = make()
        await sink.close()
        await sink.open()
        await sink.close()
        await sink.close()

    async def test_it_opens_twice_and_again_after_close(self, make: MakeSink, read: Read) -> None:
        sink = make()
        await sink.open()
        await sink.open()
        await self.settles(sink, [insert(1, 1, "a")])
        await sink.close()
        await sink.open()
        await self.settles(sink, [insert(2, 2, "b")])
        await sink.close()
        assert await read() == {1: "a", 2: "b"}

    async def test_flush_with_nothing_written_is_nothing(self, make: MakeSink) -> None:
        async with opened(make) as sink:
            await sink.flush()

    async def test_rows_come_and_go(self, make: MakeSink, read: Read) -> None:
        async with opened(make) as sink:
            await self.settles(sink, [insert(1, 1, "a"), insert(2, 2, "b")], [update(3, 1, "c"), delete(4, 2)])
        assert await read() == {1: "c"}

    async def test_the_last_change_of_a_key_wins_within_a_batch(self, make: MakeSink, read: Read) -> None:
        batch = [insert(1, 1, "a"), insert(2, 2, "x"), update(3, 1, "b"), delete(4, 1), insert(5, 1, "c"), delete(6, 2)]
        async with opened(make) as sink:
            await self.settles(sink, batch)
        assert await read() == {1: "c"}

    async def test_changed_keys_may_be_swapped(self, make: MakeSink, read: Read) -> None:
        swap = [update(3, 9, "a", before=1), update(4, 1, "b", before=2), update(5, 2, "a", before=9)]
        async with opened(make) as sink:
            await self.settles(sink, [insert(1, 1, "a"), insert(2, 2, "b")], swap)
        assert await read() == {1: "b", 2: "a"}

    async def test_a_changed_key_leaves_nothing_behind(self, make: MakeSink, read: Read) -> None:
        async with opened(make) as sink:
            await self.settles(sink, [insert(1, 1, "a")], [update(2, 7, "b", before=1)])
        assert await read() == {7: "b"}

    async def test_a_truncate_empties(self, make: MakeSink, read: Read) -> None:
        async with opened(make) as sink:
            await self.settles(sink, [insert(1, 1, "a")], [insert(2, 2, "b"), truncate(3), insert(4, 3, "c")])
        assert await read() == {3: "c"}

    async def test_a_batch_may_come_again(self, make: MakeSink, read: Read) -> None:
        batch = [insert(1, 1, "a"), insert(2, 2, "b"), update(3, 8, "c", before=1), delete(4, 2), update(5, 8, "d")]
        async with opened(make) as sink:
            await self.settles(sink, batch, batch)
            assert await read() == {8: "d"}
            # As after PartlyWritten, and as after a crash.
            await self.settles(sink, batch[2:], batch)
        assert await read() == {8: "d"}

    async def test_batches_of_different_keys_may_come_at_once(self, make: MakeSink, read: Read) -> None:
        batches = [[insert(1 + n, n, "old"), update(100 + n, n, f"new {n}")] for n in range(20)]
        async with opened(make) as sink:
            await asyncio.gather(*[sink.write(batch) for batch in batches])
            await sink.flush()
        assert await read() == {n: f"new {n}" for n in range(20)}

    async def test_a_batch_may_be_large(self, make: MakeSink, read: Read) -> None:
        async with opened(make) as sink:
            await self.settles(sink, [insert(1 + n, n, str(n)) for n in range(MANY)])
        assert await read() == {n: str(n) for n in range(MANY)}

    async def test_a_batch_is_left_as_it_is(self, make: MakeSink) -> None:
        batch = [insert(1, 1, "a"), update(2, 1, "b")]
        before = list(batch)
        async with opened(make) as sink:
            await self.settles(sink, batch)
        assert batch == before

    async def test_no_answer_is_sink_unavailable(self, unreachable: MakeSink | None, secret: str | None) -> None:
        if unreachable is None:
            return
        sink = unreachable()

        async def use() -> None:
            await sink.open()
            await sink.write([insert(1, 1, "a")])

        with pytest.raises(SinkUnavailable) as caught:
            await use()
        assert caught.value.remedy
        assert secret is None or secret not in str(caught.value) + caught.value.remedy
        await sink.close()
