"""Waiting for a subscription, and what the journal shows: on a journal that a test writes."""

from __future__ import annotations

import random

import pytest

from backend_watcher.contracts import HeldChange, HeldKey
from backend_watcher.errors import CannotVerify, SinkRejected
from backend_watcher.events.change import Change
from backend_watcher.events.position import Position
from backend_watcher.reconcile.follow import Follower
from backend_watcher.reconcile.plan import Touched
from backend_watcher.testing.builders import change

from .world import MAILS, Commit, World, WorldSink, WorldSource


def world() -> World:
    made = World(random.Random(1), busy=False)
    for _ in range(20):
        made.write()
    made.settle()
    return made


def follower(of: World) -> Follower:
    return Follower(of, "mails", stall_seconds_max=0.05)


async def test_it_waits_until_the_cursor_has_passed() -> None:
    there = world()
    there.delivered -= 2
    there.cursor = there.delivered
    with pytest.raises(CannotVerify, match=r"does not come to .* nothing has moved for 0\.05 s"):
        await follower(there).delivered(there.lsn)
    there.settle()
    last = there.commits[-1]
    assert await follower(there).delivered(there.lsn) == Position(last.lsn, len(last.changes) - 1)


async def test_it_waits_until_the_journal_has_it() -> None:
    there = world()
    with pytest.raises(CannotVerify, match="the journal does not come to"):
        await follower(there).captured(there.lsn + 100)
    with pytest.raises(CannotVerify, match="has not begun"):
        await Follower(there, "nobody").delivered(there.lsn)


async def test_it_says_what_was_touched_between_two_places() -> None:
    there = world()
    table = await WorldSource(there).table("public.mails")
    sink = WorldSink(there)
    since = there.commits[5].lsn
    found = follower(there).touched(since, there.lsn, there.state().first, table, sink.touches)
    assert found is not None
    changes = [made for one in there.commits[5:] for made in one.changes]
    assert set(found.names) == {name for made in changes for name in sink.touches(made)}
    assert {key for keys in found.names.values() for key in keys} == {(str(made.row["id"]),) for made in changes}
    assert not found.everything
    # A truncate touches everything; what cannot be named is known by its row.
    there.commits.append(Commit(99, there.lsn + 1, {}, [change("truncate", MAILS, lsn=there.lsn + 1)], True))
    there.captured += 1

    def nameless(_: Change) -> list[bytes]:
        raise SinkRejected("no key")

    later = follower(there).touched(since, there.lsn + 9, there.state().first, table, nameless)
    assert later is not None
    assert (later.everything, later.names) == (True, {})
    assert later.identities >= found.identities


async def test_what_the_journal_has_forgotten_is_not_taken_for_nothing() -> None:
    there = world()
    table = await WorldSource(there).table("public.mails")
    touches = WorldSink(there).touches
    oldest, since = there.state().first, there.commits[3].lsn
    del there.commits[:6]
    there.captured -= 6
    assert follower(there).touched(since, there.lsn, oldest, table, touches) is None
    assert follower(there).touched(there.commits[0].lsn + 5, there.lsn, oldest, table, touches) is not None


async def test_what_is_held_is_known_by_row_and_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    there = world()
    table = await WorldSource(there).table("public.mails")
    waiting = change("delete", MAILS, old={"id": 9, "mail": "x", "n": 1})
    (identity,) = waiting.identities()
    held = HeldKey(
        1, "public.mails", "9", {identity: Position(1, 0), ("public.a", b"9"): Position(1, 0)}, 1, 0, 0, None, "", ""
    )
    monkeypatch.setattr(there, "held_keys", lambda _: [held])
    kept = [HeldChange(1, 0, waiting)]
    monkeypatch.setattr(there, "held_changes", lambda _, after=-1: [one for one in kept if one.number > after])
    found = follower(there).held(table, WorldSink(there).touches)
    assert found == Touched({b"m:x": {("9",)}}, {identity[1]})
