"""What is taken from a stream, looked at and counted, with a sink that the test keeps and a time that it tells."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend_watcher.errors import SinkRejected, SinkUnavailable
from backend_watcher.events.change import Change
from backend_watcher.events.position import Position
from backend_watcher.events.row import UNCHANGED
from backend_watcher.events.table import Table
from backend_watcher.reconcile.readback import SUSPECTS_MAX, ReadBack, Tap
from backend_watcher.reconcile.sampling import LOOKS_SECONDS
from backend_watcher.reconcile.share import Within
from backend_watcher.testing.builders import change, table, transaction
from backend_watcher.testing.fakes import RecordingObserver, SeenBack
from backend_watcher.verifiable import EXPIRED

EPOCH = 946_684_800.0
PRODUCTS = table()
ORDERS = table("public.orders", {"id": "int8", "note": "text"}, relation_oid=16385)


class Keeper:
    """A cache in a dict, with the positions beside its entries; `away` is what it raises."""

    def __init__(self) -> None:
        self.entries_of: dict[bytes, tuple[bytes | None, Position]] = {}
        self.away: SinkUnavailable | None = None
        self.calls: list[tuple[str, int]] = []
        self.is_open = False

    def write(self, *changes: Change) -> None:
        for one in changes:
            self.entries_of[name_of(one)] = (value_of(one), one.position)

    async def open_to_read(self) -> None:
        self._reach("open", 0)
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    async def entries(self, changes: Sequence[Change]) -> Sequence[tuple[bytes, bytes | None] | SinkRejected]:
        assert len({one.table.full_name for one in changes}) == 1
        self._reach("entries", len(changes))
        return [SinkRejected("no key") if one.row["id"] is None else (name_of(one), value_of(one)) for one in changes]

    def touches(self, one: Change) -> Sequence[bytes]:
        return [name_of(one)]

    async def held(self, _: Table, names: Sequence[bytes]) -> Sequence[bytes | None]:
        self._reach("held", len(names))
        return [self.entries_of.get(name, (None, None))[0] for name in names]

    def _reach(self, what: str, count: int) -> None:
        if self.away is not None:
            raise self.away
        self.calls.append((what, count))


class DatedKeeper(Keeper):
    async def written_by(self, _: Table, names: Sequence[bytes]) -> Sequence[Position | None] | None:
        self._reach("written_by", len(names))
        return [self.entries_of[name][1] if name in self.entries_of else None for name in names]


def name_of(one: Change) -> bytes:
    return f"{one.table.name}:{one.row['id']}".encode()


def value_of(one: Change) -> bytes | None:
    return None if one.new is None else json.dumps(one.new.to_dict(), default=str).encode()


class Bench:
    """A subscription that is read back. Its commits are made when the test says."""

    def __init__(self, sink: Keeper | None = None, per_second: float = 10.0) -> None:
        self.time = 1000.0
        self.sink = sink if sink is not None else DatedKeeper()
        self.observer = RecordingObserver()
        self.tap = Tap(per_second, now=lambda: self.time, wall=lambda: EPOCH + self.time)
        self.back = ReadBack("cache", self.sink, self.tap, self.observer, now=lambda: self.time)  # type: ignore[arg-type]
        self.lsn = 100

    def commit(self, operation: str = "update", key: int | None = 7, name: object = "new", age: float = 0.0) -> Change:
        self.lsn += 1
        within = transaction(self.lsn, int((self.time - age) * 1e6))
        if operation == "delete":
            return change(operation, PRODUCTS, old={"id": key}, within=within)
        return change(operation, PRODUCTS, new={"id": key, "name": name}, within=within)

    def deliver(self, *changes: Change) -> None:
        self.sink.write(*changes)
        self.tap(changes)

    async def go_to(self, seconds: float) -> None:
        """Let time pass second by second, as the service does."""
        end = 1000.0 + seconds
        while self.time < end:
            self.time = min(self.time + 1.0, end)
            await self.back.tick()

    def counts(self) -> list[tuple[int, int, int]]:
        return [(one.visible, one.missed, one.unknown) for one in self.back.shares.within(self.time)]


async def test_what_is_there_is_visible_within_all_times() -> None:
    bench = Bench()
    bench.deliver(bench.commit(), bench.commit(key=8), bench.commit("delete", 9))
    await bench.go_to(70)
    assert bench.counts() == [(3, 0, 0)] * 3
    assert bench.back.shares.within(bench.time)[0] == Within(1.0, 3, 0, 0)
    assert [told for told in bench.observer.told if isinstance(told, SeenBack)] == [
        SeenBack("cache", 1.0, 3, 0),
        SeenBack("cache", 5.0, 3, 0),
        SeenBack("cache", 60.0, 3, 0),
    ]
    assert not bench.back.suspects
    # One read for each look, and none of positions: nothing was in doubt.
    assert [name for name, _ in bench.sink.calls].count("held") == 3
    assert "written_by" not in dict(bench.sink.calls)


async def test_a_subscription_without_changes_asks_its_sink_nothing() -> None:
    bench = Bench()
    await bench.go_to(70)
    assert bench.sink.calls == []


async def test_what_a_later_change_made_is_visible_too() -> None:
    bench = Bench(per_second=1.0)
    bench.deliver(bench.commit(name="first"))
    bench.deliver(bench.commit(name="second"))
    await bench.go_to(70)
    assert bench.counts() == [(1, 0, 0)] * 3
    assert not bench.back.suspects


async def test_what_was_set_back_is_a_suspect_after_the_last_look_only() -> None:
    bench = Bench()
    bench.deliver(old := bench.commit(name="old"))
    bench.deliver(bench.commit(name="new"))
    await bench.go_to(3)
    assert bench.counts()[0] == (2, 0, 0)
    name, (_, position) = name_of(old), bench.sink.entries_of[name_of(old)]
    bench.sink.entries_of[name] = (value_of(old), position)
    await bench.go_to(59)
    assert (bench.counts()[1], len(bench.back.suspects)) == ((1, 1, 0), 0)
    await bench.go_to(62)
    (suspect,) = bench.back.suspects
    assert (suspect.name, suspect.identity, suspect.row) == (b"products:7", b"7", {"id": "7"})
    assert suspect.position == position


async def test_a_sink_that_does_not_say_what_is_newer_leaves_it_open() -> None:
    bench = Bench(Keeper())
    bench.deliver(bench.commit(name="first"))
    await bench.go_to(2)
    bench.sink.write(bench.commit(name="second"))
    await bench.go_to(70)
    assert bench.counts() == [(1, 0, 0), (0, 0, 1), (0, 0, 1)]
    assert len(bench.back.suspects) == 1


async def test_what_comes_late_is_missed_and_looked_at_all_the_same() -> None:
    bench = Bench()
    late, very = bench.commit(key=1, age=3.0), bench.commit(key=2, age=300.0)
    bench.deliver(late, very)
    await bench.go_to(70)
    assert bench.counts() == [(0, 2, 0), (1, 1, 0), (1, 1, 0)]
    assert not bench.back.suspects


async def test_a_clock_of_the_source_that_is_ahead_counts_as_now() -> None:
    bench = Bench()
    bench.deliver(bench.commit(age=-50.0))
    await bench.go_to(1)
    assert bench.counts()[0] == (1, 0, 0)


async def test_what_is_not_a_change_of_today_is_not_sampled() -> None:
    bench = Bench(per_second=100.0)
    whole = table("public.products", {"id": "int8", "name": "text"}, replica_identity="f")
    large = change("update", whole, new={"id": 1, "name": UNCHANGED}, within=transaction(5, int(1e9)))
    bench.deliver(bench.commit("read"), bench.commit().as_replayed(), bench.commit(key=None))
    bench.tap([change("truncate", PRODUCTS), large])
    await bench.go_to(70)
    assert bench.counts() == [(0, 0, 0)] * 3


async def test_what_expired_is_as_it_should_be() -> None:
    bench = Bench()
    bench.deliver(one := bench.commit())
    bench.sink.entries_of[name_of(one)] = (EXPIRED, one.position)
    await bench.go_to(70)
    assert bench.counts() == [(1, 0, 0)] * 3


lags = st.integers(0, 80).map(lambda seconds: seconds + 0.5)
"""How late a change comes; never by as much as a look, where rounding would decide."""

steps = st.lists(
    st.one_of(
        st.tuples(st.just("update"), st.integers(0, 3), lags),
        st.tuples(st.just("delete"), st.integers(0, 3), lags),
        st.tuples(st.just("pass"), st.just(0), st.floats(0, 15)),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_what_is_late_is_counted_what_is_overwritten_is_not_and_what_is_set_back_is_found(
    life: list[tuple[str, int, float]],
) -> None:
    asyncio.run(lives(life))


async def lives(life: list[tuple[str, int, float]]) -> None:
    """A model that knows every delivery: each is sampled, and the sink is what the deliveries made it."""
    bench = Bench(per_second=100.0)
    came: list[float] = []
    last: dict[bytes, tuple[float, Change]] = {}
    for number, (what, key, seconds) in enumerate(life):
        if what == "pass":
            await bench.go_to(bench.time - 1000.0 + seconds)
            continue
        one = bench.commit(what, key, f"v{number}", age=seconds)
        bench.deliver(one)
        came.append(seconds)
        last[name_of(one)] = (bench.time - seconds, one)
    # Who is looked at for the last time after now, and was set back before, is suspected; nobody else is.
    wrong = {name for name, (committed, one) in last.items() if committed + 60 > bench.time}
    assert not bench.back.suspects
    for name in wrong:
        bench.sink.entries_of[name] = (b"set back", bench.sink.entries_of[name][1])
    await bench.go_to(bench.time - 1000.0 + 150.0)
    assert {one.name for one in bench.back.suspects} == wrong
    assert all(one.position == last[one.name][1].position for one in bench.back.suspects)
    for (visible, missed, unknown), within in zip(bench.counts(), LOOKS_SECONDS, strict=True):
        late = sum(lag > within for lag in came)
        assert late <= missed <= late + len(wrong)
        assert (visible + missed, unknown) == (len(came), 0)


async def test_each_table_is_asked_for_by_itself() -> None:
    bench = Bench()
    order = change("insert", ORDERS, new={"id": 7, "note": "n"}, within=transaction(101, int(1e9)))
    bench.deliver(bench.commit(), order)
    await bench.go_to(1)
    assert bench.sink.calls == [("open", 0), ("entries", 1), ("entries", 1), ("held", 1), ("held", 1)]
    assert bench.counts()[0] == (2, 0, 0)


async def test_a_sink_that_is_away_is_waited_for() -> None:
    bench = Bench()
    bench.deliver(bench.commit())
    bench.sink.away = SinkUnavailable("not there yet")
    with pytest.raises(SinkUnavailable):
        await bench.back.tick()
    bench.sink.away = None
    await bench.back.tick()
    bench.sink.away = SinkUnavailable("gone")
    for seconds in (1, 5, 30):
        bench.time = 1000.0 + seconds
        if seconds == 5:
            bench.deliver(*[bench.commit() for _ in range(100)])
        with pytest.raises(SinkUnavailable):
            await bench.back.tick()
        await bench.back.close()
    assert bench.counts() == [(0, 0, 0)] * 3
    bench.sink.away = None
    bench.time = 1031.0
    await bench.back.tick()
    assert bench.sink.is_open
    # It had been taken in time, and stands there; of the many that were delivered meanwhile ten were chosen.
    assert bench.counts()[0] == (11, 0, 0)


async def test_there_are_never_many_of_anything() -> None:
    bench = Bench(per_second=100.0)
    for second in range(200):
        bench.time = 1000.0 + second
        bench.tap([bench.commit(key=number) for number in range(1000)])
        if second % 2:
            await bench.back.tick()
    assert len(bench.back.suspects) == SUSPECTS_MAX
    assert len(bench.tap.take()) <= 200
