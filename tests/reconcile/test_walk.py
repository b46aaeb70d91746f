"""Comparing slowly, on random schedules: what is made meanwhile is not extra, what stands still is found."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backend_watcher.reconcile import walk
from backend_watcher.reconcile.compare import Kind
from backend_watcher.reconcile.follow import Follower
from backend_watcher.reconcile.plan import Suspect
from backend_watcher.reconcile.report import TableResult
from backend_watcher.reconcile.source import SourceTable
from backend_watcher.reconcile.verify import Verification
from backend_watcher.reconcile.walk import TOO_MUCH, Walk

from .world import World, WorldSink, WorldSource, owned_time, world_of


async def verified(world: World) -> TableResult:
    verification = Verification(
        "mails",
        WorldSource(world),  # type: ignore[arg-type]
        WorldSink(world),
        lambda change: change,
        Follower(world, "mails"),
        chunk_rows=2,
        slowly=True,
    )
    await verification.run(["public.mails"])
    (result,) = verification.results
    return result


def run(world: World) -> TableResult:
    with owned_time(world), pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "STEP_SECONDS", 0.0)
        return asyncio.run(verified(world))


@settings(max_examples=300, deadline=None)
@example(659, True)  # a row gives its name to one that was read before
@given(st.integers(0, 1 << 32), st.booleans())
def test_what_moves_is_never_drift(seed: int, late: bool) -> None:
    result = run(world_of(seed, late=late))
    assert not result.differences, [(one.kind, one.name) for one in result.differences]
    assert result.complete


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from(["changed", "deleted", "added"]))
def test_what_stands_still_and_differs_is_found(seed: int, how: str) -> None:
    world = world_of(seed, late=True, busy=False)
    world.settle()
    names = sorted(world.cache)
    if how == "added" or not names:
        name, kind = b"m:nobody", "extra"
        world.cache[name] = b"{}"
    else:
        name, kind = world.dice.choice(names), "missing" if how == "deleted" else "different"
        world.cache[name] = b"{}"
        if how == "deleted":
            del world.cache[name]
    result = run(world)
    assert [(one.name, str(one.kind)) for one in result.differences] == [(name, kind)]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 32))
def test_an_extra_entry_is_found_under_load(seed: int) -> None:
    world = world_of(seed, late=False)
    world.cache[b"m:nobody"] = b"{}"
    result = run(world)
    kinds = [(one.name, one.kind) for one in result.differences]
    assert kinds == [(b"m:nobody", Kind.EXTRA)]


# Where it ends


@pytest.fixture
def walked() -> Iterator[tuple[World, Walk, TableResult, SourceTable]]:
    world = World(random.Random(5))
    for _ in range(20):
        world.write()
    world.settle()
    with owned_time(world):
        table = asyncio.run(WorldSource(world).table("public.mails"))
        yield world, Walk(Follower(world, "mails"), table, WorldSink(world).touches, 0), TableResult("m", "t"), table


def test_it_keeps_the_names_of_what_was_touched_up_to_there(
    walked: tuple[World, Walk, TableResult, SourceTable],
) -> None:
    world, one, result, _ = walked
    touched = {name for commit in world.commits for made in commit.changes for name in WorldSink(world).touches(made)}
    asyncio.run(one.step(world.lsn, one.later.update))
    assert (one.later, one.end_lsn, one.lost) == (touched, world.lsn, "")
    strays = {name: Suspect(name) for name in (*touched, b"m:nobody")}
    one.take_out(strays, result)
    assert (list(strays), result.extras_unknown) == ([b"m:nobody"], "")


@pytest.mark.parametrize(("limit", "value"), [("STEP_BYTES_MAX", 10), ("LATER_MAX", -1)])
def test_with_too_much_it_is_not_known_what_is_extra(
    walked: tuple[World, Walk, TableResult, SourceTable], limit: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, one, result, _ = walked
    monkeypatch.setattr(walk, limit, value)
    asyncio.run(one.step(world.lsn, one.later.update))
    asyncio.run(one.step(world.lsn + 1, one.later.update))
    strays = {b"m:nobody": Suspect(b"m:nobody")}
    one.take_out(strays, result)
    assert (strays, result.extras_unknown) == ({}, TOO_MUCH)
