"""Random schedules by the thousand: what moves is never called drift; what stands still and differs always is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend_watcher.errors import SinkRejected
from backend_watcher.events.change import Change
from backend_watcher.reconcile import bisect, looks, plan, ranges
from backend_watcher.reconcile.follow import Follower
from backend_watcher.reconcile.report import Answer, TableResult
from backend_watcher.reconcile.verify import Verification

from .world import KEYS, World, WorldReplica, WorldSink, WorldSource, name_of, owned_time, world_of


async def verified(world: World, sink: type[WorldSink]) -> TableResult:
    verification = Verification(
        "mails",
        WorldSource(world),  # type: ignore[arg-type]
        sink(world),
        lambda change: change,
        Follower(world, "mails"),
        chunk_rows=2,
        as_they_are=["public.mails"],
    )
    await verification.run(["public.mails"])
    (result,) = verification.results
    return result


def run(world: World, sink: type[WorldSink] = WorldSink) -> TableResult:
    with owned_time(world), pytest.MonkeyPatch.context() as patch:
        # Parts of one or two rows: with more of them a world would have but one.
        for module, name, value in (
            (bisect, "PART_ROWS", 2),
            (ranges, "PART_ROWS", 2),
            (bisect, "RANGE_ROWS_FIRST", 4),
        ):
            patch.setattr(module, name, value)
        return asyncio.run(verified(world, sink))


SINKS = st.sampled_from([WorldSink, WorldReplica])


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 1 << 32), SINKS)
def test_what_moves_is_never_drift(seed: int, sink: type[WorldSink]) -> None:
    result = run(world_of(seed, late=False), sink)
    assert not result.differences, [(one.kind, one.name) for one in result.differences]
    assert result.complete


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 1 << 32), SINKS)
def test_nor_is_what_is_committed_and_not_seen(seed: int, sink: type[WorldSink]) -> None:
    result = run(world_of(seed, late=True), sink)
    assert not result.differences, [(one.kind, one.name) for one in result.differences]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from(["changed", "deleted", "added"]))
def test_what_stands_still_and_differs_is_always_found(seed: int, how: str) -> None:
    world = world_of(seed, late=True, busy=False)
    world.settle()
    if how == "added" or not world.cache:
        name, kind = b"m:nobody", "extra"
        world.cache[name] = b"{}"
    else:
        name, kind = world.dice.choice(sorted(world.cache)), "missing" if how == "deleted" else "different"
        if how == "deleted":
            del world.cache[name]
        else:
            world.cache[name] = b"{}"
    result = run(world)
    assert [(one.name, str(one.kind)) for one in result.differences] == [(name, kind)]
    assert result.source != result.sink


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from(["changed", "deleted", "added"]), st.integers(-1, KEYS), st.data())
def test_so_it_is_in_a_copy_of_which_only_digests_are_read(seed: int, how: str, key: int, data: st.DataObject) -> None:
    world = world_of(seed, late=True, busy=False)
    world.settle()
    # What is digested at once may be less than what there is.
    world.rows_in_time = data.draw(st.sampled_from([2, 3, 1 << 30]))
    copy = world.copy
    if how == "added" or key not in copy:
        kind = "different" if key in copy else "extra"
        copy[key] = ("by hand", 0)
    elif how == "deleted":
        kind = "missing"
        del copy[key]
    else:
        kind = "different"
        copy[key] = ("by hand", 0)
    result = run(world, WorldReplica)
    assert [(one.name, str(one.kind)) for one in result.differences] == [(b'["%d"]' % key, kind)]
    assert (result.source != result.sink, result.by_digests, result.complete) == (True, True, True)
    assert result.rows == result.source.count == len(world.rows)


def test_of_a_copy_that_is_equal_no_row_is_read() -> None:
    world = world_of(1, late=False, busy=False)
    world.settle()
    result = run(world, WorldReplica)
    assert result.answer is Answer.EQUAL
    assert (result.by_digests, result.read_again) == (True, 0)
    assert result.rows == result.source.count == result.sink.count == len(world.rows)
    assert result.source == result.sink


class Refusing(WorldSink):
    """A cache that never takes the rows with even keys."""

    async def entries(self, changes: Sequence[Change]) -> Sequence[tuple[bytes, bytes | None] | SinkRejected]:
        entries = await super().entries(changes)
        pairs = zip(changes, entries, strict=True)
        return [SinkRejected("no") if made.row["id"] % 2 == 0 else entry for made, entry in pairs]


def test_of_a_row_that_is_refused_nothing_is_expected() -> None:
    world = world_of(1, late=False, busy=False)
    world.settle()
    even = [key for key in world.rows if key % 2 == 0]
    assert even
    # What stood there before is no extra entry, and need not be what it was.
    world.cache[name_of(world.rows[even[0]][0])] = b"{}"
    result = run(world, Refusing)
    assert (result.answer, result.refused) == (Answer.EQUAL, len(even))
    assert result.notes == ["a row that cannot be delivered: SinkRejected"]


def test_without_anything_going_on_both_digests_are_one() -> None:
    world = world_of(1, late=False, busy=False)
    world.settle()
    result = run(world)
    assert result.answer is Answer.EQUAL
    assert result.source == result.sink
    assert result.rows == result.sink.count == len(world.rows) <= KEYS
    assert result.looked_again == 0


@pytest.mark.parametrize("sink", [WorldSink, WorldReplica])
def test_without_the_journal_a_load_would_be_taken_for_drift(
    sink: type[WorldSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of the tests above can fail: this is what comparing twice does."""
    monkeypatch.setattr(plan.Touched, "by", lambda self, suspect: False)
    assert any(run(world_of(seed, late=False), sink).differences for seed in range(50))


@pytest.mark.parametrize("sink", [WorldSink, WorldReplica])
def test_without_the_riddles_a_late_commit_would_be_taken_for_drift(
    sink: type[WorldSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "riddles", lambda *_: frozenset())
    assert any(run(world_of(seed, late=True), sink).differences for seed in range(300))
