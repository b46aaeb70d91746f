"""Random schedules by the thousand: what moves is never called drift; what stands still and differs always is."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend_watcher.reconcile import bisect, looks, ranges
from backend_watcher.reconcile.follow import Follower
from backend_watcher.reconcile.plan import Suspect
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


async def looked_at(world: World, names: list[bytes], since_lsn: int) -> TableResult:
    verification = Verification(
        "mails",
        WorldSource(world),  # type: ignore[arg-type]
        WorldSink(world),
        lambda change: change,
        Follower(world, "mails"),
    )
    mails = {name_of(mail): (str(key),) for key, (mail, _) in world.rows.items()}
    suspects = [Suspect(name, {mails[name]} if name in mails else set()) for name in names]
    await verification.only("public.mails", suspects, since_lsn)
    (result,) = verification.results
    return result


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 32), st.booleans())
def test_some_entries_are_judged_as_all_are(seed: int, late: bool) -> None:
    world = world_of(seed, late=late)
    with owned_time(world):
        names = [b"m:mail%d" % number for number in range(KEYS + 2)]
        # What is committed and not seen is not known to be of a row.
        result = asyncio.run(looked_at(world, names, 1 if late else world.lsn))
    assert not result.differences, [(one.kind, one.name) for one in result.differences]
    assert result.complete


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 32))
def test_of_some_entries_only_those_are_looked_at(seed: int) -> None:
    world = world_of(seed, late=True, busy=False)
    world.settle()
    world.cache |= {b"m:nobody": b"{}", b"m:no one": b"{}"}
    with owned_time(world):
        result = asyncio.run(looked_at(world, [b"m:nobody", *sorted(world.cache)[:2]], world.lsn))
    assert {(one.name, str(one.kind)) for one in result.differences} >= {(b"m:nobody", "extra")}
    assert len(result.differences) == 1 + (b"m:no one" in sorted(world.cache)[:2])
    assert result.answer is Answer.DIFFERENT


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
    monkeypatch.setattr(looks.Touched, "by", lambda self, suspect: False)
    assert any(run(world_of(seed, late=False), sink).differences for seed in range(50))


@pytest.mark.parametrize("sink", [WorldSink, WorldReplica])
def test_without_the_riddles_a_late_commit_would_be_taken_for_drift(
    sink: type[WorldSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "riddles", lambda *_: frozenset())
    assert any(run(world_of(seed, late=True), sink).differences for seed in range(300))
