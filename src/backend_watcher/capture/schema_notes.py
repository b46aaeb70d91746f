"""
Where differences of the watched tables are written down until a person has seen them: notes of the journal.

`schema:7` is difference 7, `schema_last` the highest number given. Only capture adds; who has seen one removes it. At
SCHEMA_CHANGES_MAX the oldest moves into the audit, which forgets nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from backend_watcher.capture.schema import Noticed
from backend_watcher.contracts import Audit, Journal
from backend_watcher.events.schema_change import SchemaChange

SCHEMA_CHANGES_MAX = 1000
"""How many are kept open."""

LAST = "schema_last"
_PREFIX = "schema:"


def note_name(number: int) -> str:
    """Return the name of the note that one is kept in."""
    return f"{_PREFIX}{number}"


def read_change(note: str | None) -> SchemaChange | None:
    """Read a note; None where there is none, or one of another time."""
    try:
        return SchemaChange(**json.loads(note or ""))
    except (ValueError, TypeError):
        return None


def open_changes(notes: Mapping[str, str]) -> list[SchemaChange]:
    """Return those that nobody has marked as seen, oldest first, from all notes of a journal."""
    found = [read_change(text) for name, text in notes.items() if name.startswith(_PREFIX)]
    return sorted((one for one in found if one is not None), key=lambda one: one.number)


async def last_number(journal: Journal) -> int:
    """Return the highest number that was given, 0 for none."""
    note = await journal.get_note(LAST)
    return int(note) if note and note.isdecimal() else 0


async def load_changes(journal: Journal, after: int = 0) -> list[SchemaChange]:
    """Return the open ones with numbers above `after`, oldest first."""
    last = await last_number(journal)
    numbers = range(max(after, last - SCHEMA_CHANGES_MAX) + 1, last + 1)
    found = [read_change(await journal.get_note(note_name(number))) for number in numbers]
    return [one for one in found if one is not None]


async def add_changes(
    journal: Journal, noticed: Sequence[Noticed], *, once: bool = False, now: Callable[[], float] = time.time
) -> list[SchemaChange]:
    """Write down what was noticed, and return it as it is kept; with `once`, not what stands open already."""
    if once:
        there = {(one.kind, one.table, one.what) for one in await load_changes(journal)}
        noticed = [one for one in noticed if (one.kind, one.table, one.what) not in there]
    last = await last_number(journal)
    added = []
    for number, one in enumerate(noticed, last + 1):
        change = SchemaChange(number, now(), **one._asdict())
        await _make_room(journal, number)
        await journal.set_note(note_name(number), json.dumps(asdict(change)))
        # After the note itself: a number that was given is never given again.
        await journal.set_note(LAST, str(number))
        added.append(change)
    return added


async def _make_room(journal: Journal, number: int) -> None:
    oldest = note_name(number - SCHEMA_CHANGES_MAX)
    change = read_change(await journal.get_note(oldest))
    if change is not None:
        detail = f"{change.kind}: {change.what}; {change.reason}"
        await journal.audit(Audit(change.at, "watcher", "schema, no room for it any more", change.table, detail))
        await journal.set_note(oldest, None)
