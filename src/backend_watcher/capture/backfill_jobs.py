"""
Backfills that were asked for: notes of the journal, so that a restart goes on where the last chunk became durable.

`backfill:7` is number 7, `backfill_last` the highest number given, `backfill_wish:7` what people want of it. One is
about one table, for some subscriptions. The oldest that have ended are forgotten at ENDED_MAX.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum

from backend_watcher.contracts import Journal

ENDED_MAX = 200
"""How many that have ended are remembered."""

OPEN_MAX = 1000
"""How many may wait or run."""

LAST = "backfill_last"
_PREFIX = "backfill:"
_WISH = "backfill_wish:"


class BackfillState(StrEnum):
    """Where a backfill stands."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN = frozenset({BackfillState.WAITING, BackfillState.RUNNING, BackfillState.PAUSED})


@dataclass(frozen=True, slots=True)
class Backfill:
    """
    One table to be read for some subscriptions, all that want it if none is named.

    A `repair` is for one subscription that is to hold what these rows say: what drops one of them has it removed from
    its sink. One that `removes` says so of keys that no row has, too.

    `after` is where the last durable chunk ended: key columns as text, or, for a table without a key, a relation's
    OID and a page. `rows` were put into the stream, `stale` were left out because the stream had brought newer ones,
    `again` counts chunks that had to be read again. `detail` says what it waits for, or why it failed. Times are in
    seconds since 1970.
    """

    number: int
    table: str
    subscriptions: tuple[str, ...]
    by: str
    asked_at: float
    where: str | None = None
    keys: tuple[tuple[str, ...], ...] = ()
    rows_per_second_max: float | None = None
    repair: bool = False
    removes: bool = False
    state: BackfillState = BackfillState.WAITING
    detail: str = ""
    after: tuple[str, ...] = ()
    rows: int = 0
    stale: int = 0
    again: int = 0
    chunks: int = 0
    size_bytes: int = 0
    estimated_rows: int = 0
    begun_at: float | None = None
    ended_at: float | None = None
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """What its rows carry as `change.context["backfill"]`."""
        return str(self.number)

    @property
    def is_open(self) -> bool:
        """Say that it has not ended."""
        return self.state in OPEN


_FIELDS = frozenset(field.name for field in fields(Backfill))


def note_name(number: int) -> str:
    """Return the name of the note that one is kept in."""
    return f"{_PREFIX}{number}"


def read_backfill(note: str | None) -> Backfill | None:
    """Read a note; None where there is none, or one that is not readable."""
    try:
        values = {name: value for name, value in json.loads(note or "").items() if name in _FIELDS}
        values["state"] = BackfillState(values["state"])
        values["subscriptions"] = tuple(values["subscriptions"])
        values["after"] = tuple(values["after"])
        values["keys"] = tuple(map(tuple, values["keys"]))
        return Backfill(**values)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def write_backfill(job: Backfill) -> str:
    """Write what `read_backfill` reads."""
    # Plain ASCII: a key may hold what is no UTF-8.
    return json.dumps(asdict(job))


def all_backfills(notes: Mapping[str, str]) -> list[Backfill]:
    """Return every one that is remembered, oldest first, from all notes of a journal."""
    found = [read_backfill(text) for name, text in notes.items() if name.startswith(_PREFIX)]
    return sorted((one for one in found if one is not None), key=lambda one: one.number)


async def last_number(journal: Journal) -> int:
    """Return the highest number that was given, 0 for none."""
    note = await journal.get_note(LAST)
    return int(note) if note and note.isdecimal() else 0


async def load_backfills(journal: Journal) -> list[Backfill]:
    """Return every one that is remembered, oldest first."""
    last = await last_number(journal)
    first = max(0, last - ENDED_MAX - OPEN_MAX) + 1
    found = [read_backfill(await journal.get_note(note_name(number))) for number in range(first, last + 1)]
    return [one for one in found if one is not None]


async def save_backfill(journal: Journal, job: Backfill) -> None:
    """Keep how a backfill stands. Durable when it returns, with or after every chunk that was appended before."""
    await journal.set_note(note_name(job.number), write_backfill(job))


async def wish(journal: Journal, number: int, state: BackfillState) -> None:
    """Ask for a backfill to be paused, cancelled, or, with `WAITING`, to go on. Whoever runs it obeys."""
    await journal.set_note(f"{_WISH}{number}", str(state))


async def obey(journal: Journal, job: Backfill, *, now: Callable[[], float] = time.time) -> Backfill:
    """Take up what was wished, keep it, and return the backfill as it stands then."""
    wished = await journal.get_note(f"{_WISH}{job.number}")
    if wished is None:
        return job
    if job.is_open and wished in list(BackfillState) and not (wished == "waiting" and job.state == "running"):
        job = replace(job, state=BackfillState(wished), detail="")
        if not job.is_open:
            job = replace(job, ended_at=now())
        await save_backfill(journal, job)
    # After what it asked for is kept: a crash in between has it obeyed twice.
    await journal.set_note(f"{_WISH}{job.number}", None)
    return job


async def add_backfills(
    journal: Journal, wanted: Sequence[Backfill], *, now: Callable[[], float] = time.time
) -> list[Backfill]:
    """
    Keep new ones, numbered, and return them.

    One that is open already, for the same rows of the same table and the same subscriptions, is returned in its stead.
    Raises ValueError where too many would be open.
    """
    there = await load_backfills(journal)
    open_ = [one for one in there if one.is_open]
    if len(open_) + len(wanted) > OPEN_MAX:
        raise ValueError(f"{len(open_)} backfills are open, and no more than {OPEN_MAX} can be")
    last = await last_number(journal)
    kept = []
    for one in wanted:
        same = next((known for known in open_ if _subject(known) == _subject(one)), None)
        if same is not None:
            kept.append(same)
            continue
        last += 1
        job = replace(one, number=last, asked_at=now())
        await journal.set_note(LAST, str(last))
        await save_backfill(journal, job)
        kept.append(job)
    await _forget_oldest(journal, there)
    return kept


def _subject(job: Backfill) -> tuple[object, ...]:
    return job.table, job.subscriptions, job.where, job.keys, job.repair, job.removes


async def _forget_oldest(journal: Journal, there: Sequence[Backfill]) -> None:
    ended = [one for one in there if not one.is_open]
    for one in ended[: max(0, len(ended) - ENDED_MAX)]:
        await journal.set_note(note_name(one.number), None)
