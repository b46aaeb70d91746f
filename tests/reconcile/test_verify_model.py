"""Random schedules by the thousand: what moves is never called drift; what stands still and differs always is."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend_watcher.reconcile import verify
from backend_watcher.reconcile.follow import Follower
from backend_watcher.reconcile.report import Answer, TableResult
from backend_watcher.reconcile.verify import Verification

from .world import KEYS, World, WorldSink, WorldSource, owned_time


def world_of(seed: int, *, late: bool, busy: bool = True) -> World:
    """A world with a past."""
    world = World(random.Random(seed), late=late)
    for _ in range(30):
        world.write()
    world.settle()
    for _ in range(10):
        world.step()
    world.busy = busy
    return world


async def verified(world: World) -> TableResult:
    verification = Verification(
        "mails",
        WorldSource(world),  # type: ignore[arg-type]
        WorldSink(world),
        lambda change: change,
        Follower(world, "mails"),
        chunk_rows=2,
    )
    await verification.run(["public.mails"])
    (result,) = verification.results
    return result


def run(world: World) -> TableResult:
    with owned_time(world):
        return asyncio.run(verified(world))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 32))
def test_what_moves_is_never_drift(seed: int) -> None:
    result = run(world_of(seed, late=False))
    assert not result.differences, [(one.kind, one.name) for one in result.differences]
    assert result.complete


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 32))
def test_nor_is_what_is_committed_and_not_seen(seed: int) -> None:
    result = run(world_of(seed, late=True))
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


def test_without_anything_going_on_both_digests_are_one() -> None:
    world = world_of(1, late=False, busy=False)
    world.settle()
    result = run(world)
    assert result.answer is Answer.EQUAL
    assert result.source == result.sink
    assert result.rows == result.sink.count == len(world.rows) <= KEYS
    assert result.looked_again == 0


def test_without_the_journal_a_load_would_be_taken_for_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of the tests above can fail: this is what comparing twice does."""
    monkeypatch.setattr(verify.Touched, "by", lambda self, suspect: False)
    assert any(run(world_of(seed, late=False)).differences for seed in range(50))


def test_without_the_riddles_a_late_commit_would_be_taken_for_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "riddles", lambda *_: frozenset())
    assert any(run(world_of(seed, late=True)).differences for seed in range(300))
