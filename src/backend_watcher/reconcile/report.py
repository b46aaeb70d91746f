"""What a verification has found, in plain values: for people, for programs, and as one HTML file (`page.py`). Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from backend_watcher.events.position import Position, format_lsn, parse_lsn
from backend_watcher.reconcile.compare import Difference, Kind, shown
from backend_watcher.reconcile.digest import Digest
from backend_watcher.verifiable import EXPIRED

DIFFERENCES_MAX = 10_000
"""Entries of a table that differ before verifying it ends: with so many it is to be loaded again."""

RANGES_KEPT = 10_000
"""Ranges of a table that the report lists one by one."""


class Answer(StrEnum):
    """What is known of a table, or of all."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNSETTLED = "unsettled"
    PARTIAL = "partial"


@dataclass(slots=True)
class Range:
    """Rows that were read together, with the digests of both sides after the last look."""

    rows: int
    source: Digest = field(default_factory=Digest)
    sink: Digest = field(default_factory=Digest)

    def count(self, name: bytes, wanted: bytes | None, held: bytes | None) -> None:
        """Take an entry into the digests of both sides; one that has expired is in neither."""
        if held == EXPIRED:
            return
        if wanted is not None:
            self.source.add(name, wanted)
        if held is not None:
            self.sink.add(name, held)


@dataclass(frozen=True, slots=True)
class Begun:
    """Where a table was begun: an LSN, and where the journal began then, None where it was empty."""

    lsn: int
    oldest: Position | None

    def as_plain(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {"lsn": format_lsn(self.lsn), "journal": str(self.oldest) if self.oldest is not None else None}

    @classmethod
    def of_plain(cls, plain: dict[str, Any]) -> Begun:
        """Read what `as_plain` wrote. Raises ValueError, KeyError."""
        return cls(parse_lsn(plain["lsn"]), Position.parse(plain["journal"]) if plain["journal"] is not None else None)


@dataclass(slots=True)
class TableResult:
    """
    One table of one subscription.

    `unsettled` counts, by reason, entries that differed and of which it is not known whether they stay so. `seconds`
    is how long it took. `by_digests` says that both sides summed up their rows, and `read_again` how many rows were
    read all the same, or once more.
    """

    subscription: str
    table: str
    where: str | None = None
    rows: int = 0
    ranges: int = 0
    entries: int = 0
    source: Digest = field(default_factory=Digest)
    sink: Digest = field(default_factory=Digest)
    position: Position | None = None
    listed: list[Range] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    unsettled: Counter[str] = field(default_factory=Counter)
    expired: int = 0
    refused: int = 0
    looked_again: int = 0
    by_digests: bool = False
    read_again: int = 0
    seconds: float = 0.0
    complete: bool = False
    extras_unknown: str = ""
    notes: list[str] = field(default_factory=list)
    masked: set[str] = field(default_factory=set)
    error: str = ""
    begun: Begun | None = None
    key: tuple[str, ...] = ()
    """What its rows are found by."""

    def begun_at(self, oldest: Position | None, lsn: int) -> None:
        """Note where it begins; `oldest` is asked for before the LSN."""
        self.begun = Begun(lsn, oldest)

    def count(self, kind: Kind) -> int:
        """Return how many entries differ in one way."""
        return sum(one.kind is kind for one in self.differences)

    def took(self, one: Range) -> None:
        """Take in a range that was compared."""
        self.ranges += 1
        self.rows += one.rows
        self.source.join(one.source)
        self.sink.join(one.sink)
        if len(self.listed) < RANGES_KEPT:
            self.listed.append(one)

    @property
    def full(self) -> bool:
        """Say that it differs in so many entries that looking on says nothing more."""
        return len(self.differences) >= DIFFERENCES_MAX

    @property
    def answer(self) -> Answer:
        """What is known of it. A difference that was found is one, even where not all was looked at."""
        if self.differences:
            return Answer.DIFFERENT
        if not self.complete:
            return Answer.PARTIAL
        return Answer.UNSETTLED if self.unsettled else Answer.EQUAL

    def as_plain(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "subscription": self.subscription,
            "table": self.table,
            "where": self.where,
            "verdict": str(self.answer),
            "complete": self.complete,
            "rows": self.rows,
            "entries": self.entries,
            "ranges": self.ranges,
            "source_digest": str(self.source),
            "sink_digest": str(self.sink),
            "position": str(self.position) if self.position is not None else None,
            "begun": self.begun.as_plain() if self.begun is not None else None,
            **{str(kind): self.count(kind) for kind in Kind},
            "unsettled": dict(self.unsettled),
            "expired": self.expired,
            "refused": self.refused,
            "looked_again": self.looked_again,
            "by_digests": self.by_digests,
            "read_again": self.read_again,
            "extras_unknown": self.extras_unknown,
            "notes": self.notes,
            "error": self.error,
            "seconds": round(self.seconds, 3),
            "differences": [_plain(one, self.masked, self.key) for one in self.differences],
            "listed_ranges": [[one.rows, str(one.source), str(one.sink)] for one in self.listed],
        }


def _plain(difference: Difference, masked: AbstractSet[str], key: Sequence[str]) -> dict[str, Any]:
    source, sink = shown(difference, masked)
    name = difference.name.decode("utf-8", "replace")
    # Of the row itself, and not of what the transforms make of it.
    keys = [list(one) for one in difference.keys] if masked.isdisjoint(key) else []
    return {"entry": name, "kind": str(difference.kind), "source": source, "sink": sink, "keys": keys}


def answer_of(results: Sequence[TableResult]) -> Answer:
    """Return what is known of all: the gravest that is known of one."""
    answers = {one.answer for one in results}
    for answer in (Answer.DIFFERENT, Answer.PARTIAL, Answer.UNSETTLED):
        if answer in answers:
            return answer
    return Answer.EQUAL if answers else Answer.PARTIAL
