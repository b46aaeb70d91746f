"""Single entries, looked at while everything goes on: what moves is never drift, what stands still is found."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from backend_watcher.reconcile.compare import Difference
from backend_watcher.reconcile.follow import Follower
from backend_watcher.reconcile.looks import Looks
from backend_watcher.reconcile.plan import Suspect

from .world import World, WorldSink, WorldSource, name_of, owned_time, world_of


def suspects_of(world: World, names: Sequence[bytes]) -> list[Suspect]:
    """Return entries with the row that had them when they were delivered, as who reads back knows it."""
    rows: dict[bytes, str] = {}
    for commit in world.commits:
        for made in commit.changes:
            if made.new is not None:
                rows[name_of(made.new["mail"])] = str(made.new["id"])
    return [Suspect(name, {(rows[name],)}, {rows[name].encode()}) for name in names]


async def read_back(world: World, names: Sequence[bytes]) -> dict[bytes, Difference | None]:
    seen = Looks(
        WorldSource(world),  # type: ignore[arg-type]
        WorldSink(world),
        lambda change: change,
        Follower(world, "mails"),
    )
    found, _ = await seen.look_at("public.mails", suspects_of(world, names), 0)
    return found


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 32), st.booleans())
def test_looked_at_by_itself_too_what_moves_is_never_drift(seed: int, late: bool) -> None:
    world = world_of(seed, late=late)
    names = sorted({name_of(row["mail"]) for one in world.commits for made in one.changes if (row := made.new)})
    with owned_time(world):
        found = asyncio.run(read_back(world, names))
    assert not [difference for difference in found.values() if difference is not None]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 32), st.booleans())
def test_looked_at_by_itself_what_stands_still_and_differs_is_found(seed: int, deleted: bool) -> None:
    world = world_of(seed, late=True, busy=False)
    world.settle()
    names = sorted(world.cache)
    wrong = world.dice.choice(names) if names else None
    if wrong is None:
        return
    world.cache[wrong] = b"{}"
    if deleted:
        del world.cache[wrong]
    with owned_time(world):
        found = asyncio.run(read_back(world, names))
    kinds = {name: difference.kind for name, difference in found.items() if difference is not None}
    assert kinds == {wrong: "missing" if deleted else "different"}
    assert len(found) == len(names)
