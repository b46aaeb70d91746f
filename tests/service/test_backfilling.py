"""Backfills as people ask for them, on a journal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from backend_watcher.capture.backfill_jobs import (
    Backfill,
    BackfillState,
    load_backfills,
    save_backfill,
)
from backend_watcher.delivery.route import Route, Rule
from backend_watcher.delivery.subscription import Options, Start, Subscription
from backend_watcher.errors import ConfigError
from backend_watcher.events.message import FULL_NAME
from backend_watcher.journal import MemoryJournal
from backend_watcher.service import backfilling
from backend_watcher.service.backfilling import (
    ask,
    begin_with_rows,
    begins_with_rows,
    progress,
    refuse_rows,
    steer_backfill,
)
from backend_watcher.service.config import SourceConfig
from backend_watcher.service.steering import Request, StandingLoops, steer
from backend_watcher.sinks.memory import Memory


@pytest.fixture
async def journal() -> AsyncIterator[MemoryJournal]:
    journal = MemoryJournal()
    await journal.open()
    yield journal
    await journal.close()


def subscription(name: str, start: Start, *tables: str) -> Subscription:
    route = Route({table: Rule(table) for table in tables})
    return Subscription(name, route, Memory(), options=Options(start=start))


async def test_a_subscription_that_begins_with_rows_asks_for_all_its_tables_once(journal: MemoryJournal) -> None:
    cache = subscription("cache", Start.BACKFILL, "public.b", "public.a", FULL_NAME)
    plain = subscription("plain", Start.NOW, "public.a")
    old = subscription("old", Start.BACKFILL, "public.a")
    await begin_with_rows(journal, [cache, plain, old], ["old"])
    # Killed before the cursor was written, it asks again.
    await begin_with_rows(journal, [cache, plain, old], ["old"])
    found = [(one.table, one.subscriptions) for one in await load_backfills(journal)]
    assert found == [("public.a", ("cache",)), ("public.b", ("cache",))]


async def test_asking_says_which_numbers_it_has(journal: MemoryJournal) -> None:
    said = await ask(journal, ["public.a", "public.b"], ["z", "cache"], "root", where="id > 3", rows_per_second_max=5)
    assert said == "backfill 1 (public.a), 2 (public.b); `watcher backfill list` shows how far it is"
    (first, _) = await load_backfills(journal)
    assert (first.subscriptions, first.where, first.rows_per_second_max) == (("cache", "z"), "id > 3", 5)


@pytest.mark.parametrize(
    ("tables", "wished", "fault"),
    [
        ([], {}, "no table is named"),
        (["public.a"], {"keys": [["1"], ["1", "2"]]}, "different numbers of columns"),
        (["public.a"], {"keys": [["1"]] * 1001}, "1001 keys are more than 1000"),
        (["public.a"], {"rows_per_second_max": 0}, "above 0"),
    ],
)
async def test_what_cannot_be_is_refused(
    journal: MemoryJournal, tables: list[str], wished: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault):
        await ask(journal, tables, [], "root", **wished)
    assert await load_backfills(journal) == []


async def test_too_many_are_refused(journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object) -> list[Backfill]:
        raise ValueError("2 backfills are open")

    monkeypatch.setattr(backfilling, "add_backfills", full)
    with pytest.raises(ConfigError, match="2 backfills are open"):
        await ask(journal, ["public.a"], [], "root")


async def test_one_is_paused_and_goes_on(journal: MemoryJournal) -> None:
    await ask(journal, ["public.a"], [], "root")
    said = await steer_backfill(journal, 1, BackfillState.PAUSED, at_once=True)
    assert said == "backfill 1 of public.a: paused, 0 rows were read"
    (job,) = await load_backfills(journal)
    assert job.state is BackfillState.PAUSED
    # Where a process runs it, that obeys.
    await steer_backfill(journal, 1, BackfillState.WAITING, at_once=False)
    assert await load_backfills(journal) == [job]


async def test_one_that_is_not_there_or_has_ended_is_refused(journal: MemoryJournal) -> None:
    with pytest.raises(ConfigError, match="there is no backfill 7"):
        await steer_backfill(journal, 7, BackfillState.PAUSED, at_once=True)
    await ask(journal, ["public.a"], [], "root")
    await steer_backfill(journal, 1, BackfillState.CANCELLED, at_once=True)
    with pytest.raises(ConfigError, match="it is cancelled"):
        await steer_backfill(journal, 1, BackfillState.WAITING, at_once=True)


def test_where_there_are_no_rows_none_are_read() -> None:
    assert begins_with_rows([subscription("plain", Start.NOW, "public.a")]) == []
    assert begins_with_rows([subscription("cache", Start.BACKFILL, "public.a")]) == ["public.a"]
    outbox = SourceConfig("", "", "", 10.0, kind="outbox", outbox_table="events")
    for source in (SourceConfig("", "", "", 10.0), replace(outbox, outbox_table=None), outbox):
        refuse_rows(source, ["public.a"])
    with pytest.raises(ConfigError, match=r"public\.events is the application's own outbox"):
        refuse_rows(outbox, ["public.a", "public.events"])
    with pytest.raises(ConfigError, match=r"source\.kind is 'notify'"):
        refuse_rows(replace(outbox, kind="notify"), [])


async def test_it_is_audited(journal: MemoryJournal) -> None:
    loops = StandingLoops(journal, ["cache"])
    wished = Request(operation="backfill", subscription="", by="root", subscriptions=["cache"], tables=["public.a"])
    assert (await steer(journal, loops, wished)).faults == []
    strange = Request(operation="backfill", subscription="", by="root", subscriptions=["nobody"], tables=["public.a"])
    assert (await steer(journal, loops, strange)).faults == ["subscription 'nobody' is unknown; there are: cache"]
    paused = Request(operation="backfill_pause", subscription="", by="root", number=1, reason="the sale begins")
    assert (await steer(journal, loops, paused)).faults == []
    assert [(one.action, one.subject) for one in await journal.audits()] == [
        ("backfill", "backfill"),
        ("backfill_pause", "backfill/1"),
    ]
    assert (await journal.audits())[1].detail.startswith("the sale begins")


def test_progress_is_said_as_far_as_it_is_known() -> None:
    job = Backfill(1, "public.a", (), "root", 0.0)
    assert progress(job) == (None, None, None)
    running = replace(job, state=BackfillState.RUNNING, rows=200, stale=50, estimated_rows=1000, seconds=5.0)
    assert progress(running) == (0.25, 50.0, 15.0)
    assert progress(replace(running, where="id > 3")) == (None, 50.0, None)
    assert progress(replace(running, rows=5000)) == (0.999, 1010.0, 0)
    assert progress(replace(running, state=BackfillState.DONE)) == (1.0, 50.0, None)


async def test_what_is_remembered_can_be_saved_again(journal: MemoryJournal) -> None:
    await ask(journal, ["public.a"], [], "root")
    (job,) = await load_backfills(journal)
    await save_backfill(journal, replace(job, rows=7))
    assert (await load_backfills(journal))[0].rows == 7


async def test_a_repair_is_for_one_subscription_and_is_audited(journal: MemoryJournal) -> None:
    loops = StandingLoops(journal, ["cache"])
    wished = Request(
        operation="repair", subscription="cache", by="root", table="public.a", keys=[["1"], ["2"]], reason="drift"
    )
    assert (await steer(journal, loops, wished)).faults == []
    removes = msgspec.structs.replace(wished, removes=True)
    assert (await steer(journal, loops, removes)).faults == []
    jobs = await load_backfills(journal)
    assert [(one.subscriptions, one.keys, one.repair, one.removes) for one in jobs] == [
        (("cache",), (("1",), ("2",)), True, False),
        (("cache",), (("1",), ("2",)), True, True),
    ]
    audited = [(one.actor, one.action, one.subject, one.detail) for one in await journal.audits()]
    said = "repair {} of public.a: the rows of 2 keys are read again"
    assert audited == [
        ("root", "repair", "cache", f"drift {said.format(1)}"),
        ("root", "repair", "cache", f"drift {said.format(2)}, and what has no row is removed"),
    ]


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        ({"subscription": "nobody"}, "subscription 'nobody' is unknown; there are: cache"),
        ({"keys": []}, "a repair is of some keys of a table"),
        ({"table": None}, "a repair is of some keys of a table"),
        ({"keys": [["1"]] * 1001}, "1001 keys are more than 1000"),
    ],
)
async def test_a_repair_that_cannot_be_is_refused(journal: MemoryJournal, asked: dict[str, Any], fault: str) -> None:
    wished = {"operation": "repair", "subscription": "cache", "by": "root", "table": "public.a", "keys": [["1"]]}
    answer = await steer(journal, StandingLoops(journal, ["cache"]), Request(**{**wished, **asked}))
    assert answer.faults == [fault]
    assert await load_backfills(journal) == []
