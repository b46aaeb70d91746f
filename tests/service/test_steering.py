"""What people ask of subscriptions, with a loop that runs and with a journal that nobody runs; and the audit of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from backend_watcher.contracts import HeldChange, HeldKey
from backend_watcher.delivery.route import Route
from backend_watcher.delivery.run import SubscriptionLoop
from backend_watcher.delivery.steer import load_pause, load_replay, pause_note, replay_note
from backend_watcher.delivery.subscription import Subscription
from backend_watcher.events.position import Position
from backend_watcher.journal import MemoryJournal
from backend_watcher.service.steering import Answer, Request, StandingLoops, steer
from backend_watcher.sinks.memory import Memory
from backend_watcher.testing import builders
from backend_watcher.testing.chunks import ChunkMaker
from backend_watcher.testing.fakes import OwnedClock, RecordingObserver


def change(number: int) -> Any:
    return builders.change(new={"id": 1}, ordinal=number)


@pytest.fixture
async def journal() -> AsyncIterator[MemoryJournal]:
    """A journal with three changes, a subscription that is past them, and a parked key that holds two."""
    journal = MemoryJournal()
    await journal.open()
    await journal.append(ChunkMaker()(3))
    journal.save_cursor("cache", journal.last_position)
    names = dict.fromkeys(change(0).identities(), Position(0x1000, 2))
    key = HeldKey(7, "public.products", '{"id":1}', names, 15, 1.0, 2.0, None, "KeyError", "Mend it.")
    journal.hold_changes("cache", [HeldChange(7, n, change(n)) for n in (1, 2)], key)
    yield journal
    await journal.close()


class Running:
    """The loops of a process that runs."""

    def __init__(self, journal: MemoryJournal) -> None:
        self.names = ["cache"]
        subscription = Subscription("cache", Route({}), Memory())
        self.loop = SubscriptionLoop(subscription, journal, journal.last_position, OwnedClock(), RecordingObserver())
        self.ended = False

    async def ask(self, name: str, question: Callable[[SubscriptionLoop], Coroutine[Any, Any, Any]]) -> Any:
        if self.ended:
            raise RuntimeError("thread watcher-cache has ended")
        assert name == "cache"
        return await question(self.loop)


ASKED = Request(operation="pause", subscription="cache", by="root", reason="the shop moves")


async def ask(journal: MemoryJournal, **wish: Any) -> Answer:
    request = Request(**{"operation": "", "subscription": "cache", "by": "root", **wish})
    return await steer(journal, StandingLoops(journal, ["cache"]), request)


async def test_pause_and_resume_are_kept_in_the_journal(journal: MemoryJournal) -> None:
    assert await steer(journal, StandingLoops(journal, ["cache"]), ASKED) == Answer(said="paused")
    pause = load_pause(await journal.get_note(pause_note("cache")))
    assert pause is not None
    assert (pause.by, pause.reason) == ("root", "the shop moves")
    assert (await ask(journal, operation="resume")).said == "resumed"
    assert await journal.get_note(pause_note("cache")) is None


async def test_a_replay_is_kept_until_somebody_runs_it(journal: MemoryJournal) -> None:
    answer = await ask(journal, operation="replay", after=(0x1100, 0), table="public.products", key="1")
    assert answer.said.startswith("replaying what was committed after")
    replay = load_replay(await journal.get_note(replay_note("cache")))
    assert replay is not None
    assert (replay.after, replay.key) == (Position(0x1100, 0), "1")
    assert answer.said.endswith(f"up to {journal.last_position}")
    assert "replaying already" in (await ask(journal, operation="replay")).faults[0]


async def test_a_replay_of_what_the_journal_has_not_any_more_is_refused(journal: MemoryJournal) -> None:
    answer = await ask(journal, operation="replay", after=(0x1000, 5))
    assert "the journal begins at 0/1100:0" in answer.faults[0]
    assert await journal.get_note(replay_note("cache")) is None
    # The first change itself is there.
    assert not (await ask(journal, operation="replay", after=(0x1100, -1))).faults


async def test_nothing_to_replay_is_a_fault(journal: MemoryJournal) -> None:
    answer = await ask(journal, operation="replay", after=(1 << 40, 0))
    assert "nothing to replay" in answer.faults[0]
    assert await journal.audits() == []


@pytest.mark.parametrize("number", [7, None])
async def test_redrive_makes_parked_keys_due(journal: MemoryJournal, number: int | None) -> None:
    assert (await ask(journal, operation="redrive", number=number)).said == "1 parked key is tried again"
    (key,) = await journal.held_keys("cache")
    assert (key.parked, key.attempts) == (False, 0)


@pytest.mark.parametrize(("everything", "said", "left"), [(False, "1 change is", 1), (True, "2 changes are", 0)])
async def test_discard_forgets_changes(journal: MemoryJournal, everything: bool, said: str, left: int) -> None:
    answer = await ask(journal, operation="discard", number=7, everything=everything, reason="it is gone")
    assert answer.said == f"{said} discarded, from 0/1000:1 of public.products on"
    assert len(await journal.held_changes("cache")) == left
    (audit,) = await journal.audits()
    assert (audit.actor, audit.action, audit.subject) == ("root", "discard", "cache/7")
    assert audit.detail == f"it is gone {answer.said}"


async def test_discard_wants_to_know_what_and_why(journal: MemoryJournal) -> None:
    assert (await ask(journal, operation="discard")).faults == ["number: is missing", "reason: is missing"]


@pytest.mark.parametrize("operation", ["redrive", "discard"])
async def test_a_key_that_is_not_held_is_a_fault(journal: MemoryJournal, operation: str) -> None:
    answer = await ask(journal, operation=operation, number=99, reason="why not")
    assert answer.faults == ["subscription 'cache' holds no key number 99"]


async def test_forget_is_for_subscriptions_that_are_gone(journal: MemoryJournal) -> None:
    running = Running(journal)
    refused = await steer(journal, running, replace_operation("forget"))
    assert "is running" in refused.faults[0]
    journal.save_cursor("gone", Position(1, 1))
    answer = await steer(
        journal, running, Request(operation="forget", subscription="gone", by="root", reason="replaced")
    )
    assert answer.said == "its cursor and what it held are forgotten"
    assert "gone" not in await journal.cursors()


def replace_operation(operation: str) -> Request:
    return Request(operation=operation, subscription="cache", by="root")


async def test_unknown_operations_and_subscriptions_are_named(journal: MemoryJournal) -> None:
    assert "there are pause, resume" in (await ask(journal, operation="stop")).faults[0]
    answer = await ask(journal, operation="pause", subscription="cash")
    assert answer.faults == ["subscription 'cash' is unknown; there are: cache"]


async def test_one_that_has_stopped_says_so(journal: MemoryJournal) -> None:
    running = Running(journal)
    running.ended = True
    answer = await steer(journal, running, ASKED)
    assert answer.faults == ["subscription 'cache' has stopped: thread watcher-cache has ended"]


async def test_a_running_loop_is_asked_itself(journal: MemoryJournal) -> None:
    running = Running(journal)
    await running.loop.take_up()
    assert (await steer(journal, running, ASKED)).said == "paused"
    assert (await steer(journal, running, replace_operation("redrive"))).said == "1 parked key is tried again"
    assert [entry.action for entry in await journal.audits()] == ["pause", "redrive"]


def test_standing_loops_are_those_of_the_names() -> None:
    assert StandingLoops(MemoryJournal(), ["b", "a"]).names == ["a", "b"]
