"""Ranges one after the other: what is asked of whom and when, and what is asked for less."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest

from backend_watcher.errors import SourceUnavailable
from backend_watcher.reconcile import bisect
from backend_watcher.reconcile.bisect import PART_ROWS, RANGE_ROWS_FIRST
from backend_watcher.reconcile.ranges import Compared, Ranges
from backend_watcher.verifiable import Bound

ROWS = 4 * RANGE_ROWS_FIRST + 10


class Server:
    """Both sides: `ROWS` rows from 1 on, of which the sink has other ones in `wrong` parts. It keeps what was asked."""

    def __init__(self, wrong: Sequence[int] = (), too_long: int = 1 << 30) -> None:
        self.wrong = wrong
        self.too_long = too_long
        self.asked: list[str] = []
        self.busy = 0
        self.read = type("Read", (), {"key": ("id",)})
        self.shape = type("Shape", (), {"full_name": "public.many"})

    async def digests(self, table: Any, *asked: Any) -> Any:
        return await (self._here(*asked) if len(asked) == 3 else self._there(*asked))

    async def _here(self, after: Bound, count: int, part_rows: int) -> list[tuple[int, int, Bound]] | None:
        self.busy += 1
        first = int(after[0]) if after else 0
        self.asked.append(f"source {first} {count}")
        await asyncio.sleep(0)
        self.busy -= 1
        if count > self.too_long:
            return None
        last = min(first + count, ROWS)
        ends = range(first, last, part_rows)
        return [(min(part_rows, last - at), at, (str(at + part_rows),) * (at + part_rows <= last)) for at in ends]

    async def _there(self, key: Sequence[str], bounds: Sequence[Bound]) -> list[tuple[int, int]]:
        assert key == ("id",)
        places = [int(bound[0]) if bound else 0 for bound in bounds[:-1]]
        self.asked.append(f"sink {places[0]}")
        await asyncio.sleep(0)
        if len(places) * PART_ROWS > self.too_long:
            return []
        return [(min(PART_ROWS, ROWS - at), at + (at in self.wrong)) for at in places]


def ranges(server: Server, rows_max: int = RANGE_ROWS_FIRST) -> Ranges:
    return Ranges(server, server, server, 5_000, rows_max)  # type: ignore[arg-type]


async def every(server: Server, rows_max: int = RANGE_ROWS_FIRST) -> list[Compared]:
    return [one async for one in ranges(server, rows_max).each()]


async def test_the_source_is_one_range_ahead_while_all_is_calm() -> None:
    server = Server()
    found = await every(server)
    assert sum(one.rows for one in found) == ROWS
    assert not [one for one in found if one.spans]
    first = [f"source 0 {RANGE_ROWS_FIRST}", "sink 0"]
    # Both are asked at once, so either may come first.
    assert server.asked[:2] in (first, [first[0], f"source {RANGE_ROWS_FIRST} {RANGE_ROWS_FIRST}"])
    assert len(server.asked) == 2 * len(found) == 10


async def test_it_is_left_alone_while_rows_are_read() -> None:
    server = Server(wrong=[0, 500, RANGE_ROWS_FIRST])
    spans = []
    async for one in ranges(server).each():
        if one.spans:
            spans += [*one.spans]
            assert server.busy == 0
    assert [(span.low, span.high) for span in spans] == [
        ((), ("250",)),
        (("500",), ("750",)),
        ((str(RANGE_ROWS_FIRST),), (str(RANGE_ROWS_FIRST + PART_ROWS),)),
    ]
    # After a range that was not calm the next one is digested when its turn comes: it would be old by then.
    at = server.asked.index(f"source {2 * RANGE_ROWS_FIRST} {RANGE_ROWS_FIRST}")
    assert server.asked[at - 1] == f"sink {RANGE_ROWS_FIRST}"


async def test_what_takes_too_long_is_asked_for_in_smaller_pieces() -> None:
    server = Server(wrong=[1000], too_long=2 * PART_ROWS)
    found = await every(server)
    assert sum(one.rows for one in found) == ROWS - PART_ROWS
    assert [span.low for one in found for span in one.spans] == [("1000",)]
    with pytest.raises(SourceUnavailable, match=r"250 rows of public\.many take longer"):
        await every(Server(too_long=1))


async def test_what_the_sink_cannot_sum_up_at_all_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()

    async def never(*_: Any) -> list[tuple[int, int]]:
        return []

    monkeypatch.setattr(server, "_there", never)
    found = await every(server)
    assert sum(one.rows for one in found) == 0
    spans = [span for one in found for span in one.spans]
    assert (spans[0].low, spans[-1].high, sum(span.rows for span in spans)) == ((), (), ROWS)


async def test_it_can_be_left_at_any_range() -> None:
    server = Server()
    async with aclosing(ranges(server).each()) as found:
        async for _ in found:
            break
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    assert not tasks


async def test_a_rate_bounds_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bisect, "QUERY_SECONDS", 1000.0)
    server = Server()
    await every(server, rows_max=700)
    assert {one.split()[2] for one in server.asked if one.startswith("source")} == {"500"}
