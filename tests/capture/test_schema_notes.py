"""Differences are kept until they are seen, in order, bounded, and never forgotten without a trace."""

from __future__ import annotations

import pytest

from backend_watcher.capture import schema_notes
from backend_watcher.capture.schema import Noticed
from backend_watcher.capture.schema_notes import LAST, add_changes, load_changes, note_name, open_changes, read_change
from backend_watcher.journal import MemoryJournal


def noticed(number: int) -> Noticed:
    return Noticed("rewritten", "public.a", f"was rewritten {number}", True, "rows differ", "Read them again.")


async def test_they_are_numbered_and_read_back(journal: MemoryJournal) -> None:
    first = await add_changes(journal, [noticed(1), noticed(2)], now=lambda: 5.0)
    second = await add_changes(journal, [noticed(3)])
    assert [one.number for one in (*first, *second)] == [1, 2, 3]
    assert first[0].at == 5.0
    assert await load_changes(journal) == [*first, *second]
    assert await load_changes(journal, after=2) == second
    notes = {note_name(n): await journal.get_note(note_name(n)) or "" for n in (2, 1)} | {"process": "{}"}
    assert [one.number for one in open_changes(notes)] == [1, 2]


async def test_what_was_seen_leaves_its_number_unused(journal: MemoryJournal) -> None:
    await add_changes(journal, [noticed(1)])
    await journal.set_note(note_name(1), None)
    (second,) = await add_changes(journal, [noticed(1)])
    assert second.number == 2
    assert await load_changes(journal) == [second]


async def test_what_stands_open_is_not_said_twice_where_that_is_asked(journal: MemoryJournal) -> None:
    await add_changes(journal, [noticed(1)])
    assert [one.number for one in await add_changes(journal, [noticed(1), noticed(2)], once=True)] == [2]
    assert len(await add_changes(journal, [noticed(1)])) == 1


async def test_the_oldest_makes_room_and_stays_in_the_audit(
    journal: MemoryJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_notes, "SCHEMA_CHANGES_MAX", 3)
    await add_changes(journal, [noticed(number) for number in range(1, 6)])
    assert [one.number for one in await load_changes(journal)] == [3, 4, 5]
    assert [one.detail for one in await journal.audits()] == [
        f"rewritten: was rewritten {number}; rows differ" for number in (1, 2)
    ]


async def test_a_crash_between_the_note_and_its_number_says_it_again(journal: MemoryJournal) -> None:
    await add_changes(journal, [noticed(1)])
    await journal.set_note(LAST, None)
    assert await load_changes(journal) == []
    assert [one.number for one in await add_changes(journal, [noticed(1)])] == [1]


def test_a_note_of_another_time_is_none() -> None:
    for note in (None, "", "[]", "{}", '{"number": 1}'):
        assert read_change(note) is None
