"""
Slow scans of a whole subscription: when the next is due, at which pace, and what is kept of them. Pure.

A scan goes through the tables one by one, and is done within the period that was asked for as long as the most rows a
second that it may read allow that. What is known of each table is written down when it is done, so that a restart
goes on with the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from backend_watcher.reconcile.compare import Kind
from backend_watcher.reconcile.report import Answer, TableResult

ROWS_PER_SECOND_MAX = 5_000.0
ROWS_PER_SECOND_MIN = 200.0
"""Slower, a small table would take hours for nothing."""

CHUNK_SECONDS = 1.0
CHUNK_ROWS_MIN, CHUNK_ROWS_MAX = 100, 5_000
"""A scan reads about a second's worth at a time."""

EXTRAS_ROWS_MAX = 5_000_000
"""Rows of which the names are kept in mind, 8 bytes each, to find entries that have no row."""

NOTES_MAX = 20


@dataclass(slots=True)
class Outcome:
    """What a scan knows of one table; times in seconds since 1970."""

    verdict: str
    ended_at: float
    rows: int = 0
    entries: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    unsettled: int = 0
    seconds: float = 0.0
    position: str | None = None
    extras_unknown: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Round:
    """One scan of all tables; `ended_at` is None while it goes on, `error` is why it does not go on just now."""

    begun_at: float
    ended_at: float | None = None
    tables: dict[str, Outcome] = field(default_factory=dict)
    error: str = ""

    @property
    def verdict(self) -> str:
        """The gravest of its tables; of one that goes on it is partial, unless something differs already."""
        verdicts = {one.verdict for one in self.tables.values()}
        if Answer.DIFFERENT in verdicts:
            return str(Answer.DIFFERENT)
        if self.ended_at is None or not verdicts:
            return str(Answer.PARTIAL)
        return next((str(one) for one in (Answer.PARTIAL, Answer.UNSETTLED) if one in verdicts), str(Answer.EQUAL))

    @property
    def words(self) -> str:
        """How much was compared, and what was found."""
        every = self.tables.values()
        found = [(sum(getattr(one, kind) for one in every), kind) for kind in ("missing", "extra", "different")]
        found.append((sum(one.unsettled for one in every), "unsettled"))
        told = ", ".join(f"{count} {kind}" for count, kind in found if count)
        rows = sum(one.rows for one in every)
        return f"{rows} rows of {len(self.tables)} tables" + (f": {told}" if told else "")


@dataclass(slots=True)
class Scans:
    """The scan that goes on, and the last one that was done."""

    now: Round | None = None
    last: Round | None = None

    def due_at(self, period_seconds: float) -> float:
        """Return when a scan is to begin, or to go on."""
        if self.now is not None or self.last is None:
            return 0.0
        return self.last.begun_at + period_seconds

    def next_table(self, tables: Sequence[str], now: float) -> str | None:
        """Return the table to scan next, None where all are done: the scan has ended by that."""
        if self.now is None:
            self.now = Round(now)
        # What is no longer listened to is not said to be equal.
        self.now.tables = {name: one for name, one in self.now.tables.items() if name in tables}
        left = [table for table in tables if table not in self.now.tables]
        if left:
            return left[0]
        self.now.ended_at, self.now.error = now, ""
        self.last, self.now = self.now, None
        return None

    def as_plain(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            name: None if one is None else asdict(one) | {"verdict": one.verdict}
            for name, one in (("now", self.now), ("last", self.last))
        }


def outcome_of(result: TableResult, ended_at: float) -> Outcome:
    """Return what is kept of a table's result: no entries, and no values."""
    return Outcome(
        str(result.answer),
        ended_at,
        result.rows,
        result.entries,
        result.count(Kind.MISSING),
        result.count(Kind.EXTRA),
        result.count(Kind.DIFFERENT),
        sum(result.unsettled.values()),
        round(result.seconds, 3),
        str(result.position) if result.position is not None else None,
        result.extras_unknown,
        result.notes[:NOTES_MAX],
    )


def pace(rows: int, seconds: float) -> float:
    """Return how many rows a second are read, so that about so many take half the time: the number is an estimate."""
    return min(max(2 * rows / seconds, ROWS_PER_SECOND_MIN), ROWS_PER_SECOND_MAX)


def chunk_rows(rows_per_second: float) -> int:
    """Return how many rows are read at a time."""
    return min(max(int(rows_per_second * CHUNK_SECONDS), CHUNK_ROWS_MIN), CHUNK_ROWS_MAX)


def note_name(subscription: str) -> str:
    """Return the name of the journal's note that holds the scans of a subscription."""
    return f"scan:{subscription}"


def dump(scans: Scans) -> str:
    """Write a note."""
    return msgspec.json.encode(scans).decode()


def load(text: str | None) -> Scans:
    """Read a note; what cannot be read is nothing."""
    try:
        return Scans() if text is None else msgspec.json.decode(text, type=Scans)
    except msgspec.MsgspecError:
        return Scans()
