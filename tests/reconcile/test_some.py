"""Some entries are judged as all are, whatever has become of their rows since."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from backend_watcher.reconcile.follow import Follower
from backend_watcher.reconcile.plan import Suspect
from backend_watcher.reconcile.report import Answer, Begun, TableResult
from backend_watcher.reconcile.some import SomeEntries
from backend_watcher.reconcile.verify import FORGOTTEN

from .world import KEYS, World, WorldSink, WorldSource, name_of, owned_time, world_of

NAMES = [b"m:mail%d" % number for number in range(KEYS + 2)]


async def looked_at(world: World, names: list[bytes], begun: Begun | None) -> TableResult:
    verification = SomeEntries(
        "mails",
        WorldSource(world),  # type: ignore[arg-type]
        WorldSink(world),
        lambda change: change,
        Follower(world, "mails"),
    )
    mails = {name_of(mail): (str(key),) for key, (mail, _) in world.rows.items()}
    suspects = [Suspect(name, {mails[name]} if name in mails else set()) for name in names]
    await verification.look("public.mails", suspects, begun)
    (result,) = verification.results
    return result


def look(world: World, names: list[bytes], begun: Begun | None) -> TableResult:
    with owned_time(world):
        return asyncio.run(looked_at(world, names, begun))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 32), st.booleans())
def test_what_moves_is_never_drift(seed: int, late: bool) -> None:
    world = world_of(seed, late=late)
    # What is committed and not seen yet is not known to be of a row.
    result = look(world, NAMES, Begun(1 if late else world.lsn, world.state().first))
    assert not result.differences, [(one.kind, one.name) for one in result.differences]
    assert (result.complete, result.entries) == (True, len(NAMES))


def test_without_what_came_since_a_row_that_took_a_name_would_not_be_found() -> None:
    wrong = 0
    for seed in range(200):
        world = world_of(seed, late=False)
        suspects = [Suspect(name) for name in NAMES]

        async def forgetful(world: World = world, suspects: list[Suspect] = suspects) -> TableResult:
            verification = SomeEntries(
                "mails",
                WorldSource(world),  # type: ignore[arg-type]
                WorldSink(world),
                lambda change: change,
                Follower(world, "mails"),
            )
            await verification.look("public.mails", suspects, None)
            return verification.results[0]

        with owned_time(world):
            wrong += bool(asyncio.run(forgetful()).differences)
    assert wrong > 0


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 32))
def test_only_those_that_are_named_are_looked_at(seed: int) -> None:
    world = world_of(seed, late=True, busy=False)
    world.settle()
    world.cache |= {b"m:nobody": b"{}", b"m:no one": b"{}"}
    others = sorted(world.cache)[:2]
    result = look(world, [b"m:nobody", *others], Begun(world.lsn, world.state().first))
    assert {one.name for one in result.differences} == {b"m:nobody"} | ({b"m:no one"} & set(others))
    assert {str(one.kind) for one in result.differences} == {"extra"}
    assert result.answer is Answer.DIFFERENT


def test_where_the_journal_has_lost_what_came_since_nothing_is_known() -> None:
    world = world_of(3, late=False, busy=False)
    world.settle()
    world.cache[b"m:nobody"] = b"{}"
    result = look(world, [b"m:nobody"], Begun(1, None if world.state().first is None else world.state().last))
    assert (result.answer, dict(result.unsettled)) == (Answer.UNSETTLED, {FORGOTTEN: 1})
