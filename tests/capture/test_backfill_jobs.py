"""Backfills are kept until they have ended, and for a while after; what people wish of them is obeyed once."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from backend_watcher.capture import backfill_jobs
from backend_watcher.capture.backfill_jobs import (
    Backfill,
    BackfillState,
    add_backfills,
    all_backfills,
    load_backfills,
    note_name,
    obey,
    read_backfill,
    save_backfill,
    wish,
    write_backfill,
)
from backend_watcher.journal import MemoryJournal


def wanted(table: str = "public.a", *names: str) -> Backfill:
    return Backfill(0, table, names, "root", 0.0)


async def test_they_are_numbered_and_read_back(journal: MemoryJournal) -> None:
    first = await add_backfills(journal, [wanted(), wanted("public.b", "cache")], now=lambda: 5.0)
    second = await add_backfills(journal, [wanted("public.c")])
    assert [one.number for one in (*first, *second)] == [1, 2, 3]
    assert first[0].asked_at == 5.0
    assert await load_backfills(journal) == [*first, *second]
    notes = {note_name(n): await journal.get_note(note_name(n)) or "" for n in (2, 1)} | {"backfill_last": "3"}
    assert [one.number for one in all_backfills(notes)] == [1, 2]


async def test_the_same_rows_are_asked_for_once(journal: MemoryJournal) -> None:
    (first,) = await add_backfills(journal, [wanted("public.a", "cache")])
    (again,) = await add_backfills(journal, [wanted("public.a", "cache")])
    (other,) = await add_backfills(journal, [replace(wanted("public.a", "cache"), where="id = 1")])
    assert (again, other.number) == (first, 2)
    (mended,) = await add_backfills(journal, [replace(wanted("public.a", "cache"), repair=True)])
    assert mended.number == 3
    await save_backfill(journal, replace(first, state=BackfillState.DONE))
    (later,) = await add_backfills(journal, [wanted("public.a", "cache")])
    assert later.number == 4


async def test_everything_about_one_is_kept(journal: MemoryJournal) -> None:
    job = replace(
        wanted("public.a", "cache", "copy"),
        number=1,
        where="a > 'ü'",
        keys=(("1", "\udcff"), ("2", "b")),
        repair=True,
        removes=True,
        state=BackfillState.PAUSED,
        after=("7", "\udce4\t"),
        rows=3,
        begun_at=1.5,
    )
    assert read_backfill(write_backfill(job)) == job
    assert write_backfill(job).isascii()


def test_one_that_was_written_before_there_were_repairs_is_read() -> None:
    written = json.loads(write_backfill(replace(wanted("public.a", "cache"), number=7)))
    del written["repair"], written["removes"]
    found = read_backfill(json.dumps(written))
    assert found is not None
    assert (found.number, found.repair, found.removes) == (7, False, False)


@pytest.mark.parametrize("note", [None, "", "7", "{}", '{"state": "strange"}', "[]"])
def test_a_note_of_another_time_is_none(note: str | None) -> None:
    assert read_backfill(note) is None


async def test_a_wish_is_obeyed_once(journal: MemoryJournal) -> None:
    (job,) = await add_backfills(journal, [wanted()])
    assert await obey(journal, job) == job
    await wish(journal, 1, BackfillState.PAUSED)
    paused = await obey(journal, job)
    assert paused.state is BackfillState.PAUSED
    assert await load_backfills(journal) == [paused]
    assert await obey(journal, paused) == paused
    await wish(journal, 1, BackfillState.CANCELLED)
    cancelled = await obey(journal, paused, now=lambda: 9.0)
    assert (cancelled.state, cancelled.ended_at) == (BackfillState.CANCELLED, 9.0)
    await wish(journal, 1, BackfillState.WAITING)
    assert await obey(journal, cancelled) == cancelled


async def test_one_that_runs_is_not_set_back_by_a_wish_to_go_on(journal: MemoryJournal) -> None:
    (job,) = await add_backfills(journal, [wanted()])
    running = replace(job, state=BackfillState.RUNNING)
    await wish(journal, 1, BackfillState.WAITING)
    assert await obey(journal, running) == running


async def test_the_oldest_that_ended_make_room(journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill_jobs, "ENDED_MAX", 2)
    for number in range(1, 6):
        (job,) = await add_backfills(journal, [wanted(f"public.t{number}")])
        await save_backfill(journal, replace(job, state=BackfillState.DONE))
    assert [one.number for one in await load_backfills(journal)] == [3, 4, 5]


async def test_no_more_than_so_many_are_open(journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill_jobs, "OPEN_MAX", 2)
    await add_backfills(journal, [wanted("public.a"), wanted("public.b")])
    with pytest.raises(ValueError, match="2 backfills are open"):
        await add_backfills(journal, [wanted("public.c")])
