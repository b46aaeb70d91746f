"""
When an entry that differs is drift, and when it only moves. Pure.

A *look* at some entries is, in this order:

1. the transactions that are running: some may have written their commit long ago without anybody seeing it yet, which
   synchronous replication makes common (see `riddles`);
2. their rows at the source, under one snapshot, which is taken again until no riddle is open in it;
3. a mark in the WAL, and waiting until the subscription's cursor has passed all that committed before it;
4. their entries at the sink;
5. another mark, and waiting until the journal has all that committed before it: so everything that the sink can have
   shown in 4 can now be read in the journal.

What the snapshot sees was committed before the first mark, so the sink has it. What the snapshot does not see is in the
journal after the place where the look before this one ended, or where the rows had been read at first. So an entry
that no change in the journal touches after that place stands still, and if it differs, that is **drift**, however busy
the table is. One that was touched is **moving**, and is looked at again; one that moves in every look stays
**unsettled**, and is never called drift. Nor is one of a key that delivery holds back because it fails: that it differs
is known, and `watcher parked list` shows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from backend_watcher.events.snapshot import Snapshot

LOOKS_MAX = 6
LOOK_SECONDS_FIRST, LOOK_SECONDS_MAX = 0.2, 5.0
"""How long to wait before the second look, and at most before a later one; each waits three times as long."""

ENTRIES_MAX = 1_000
"""Entries in one look: its rows are asked for by their keys, in one query."""

RIDDLE_SECONDS = 0.2
RIDDLE_TRIES_MAX = 25
"""How often is waited for a transaction that may be committing; after that what depends on it stays unsettled."""

MOVING = "changed all the time"
HELD = "its key is held: see `watcher parked list`"
OPEN = "a transaction was open that may have been committing"
FORGOTTEN = "the journal no longer has what changed meanwhile"
"""Why it is not known whether an entry stays as it is."""


class Verdict(StrEnum):
    """What is known of an entry after a look."""

    EQUAL = "equal"
    DRIFT = "drift"
    MOVING = "moving"
    HELD = "held"


@dataclass(slots=True)
class Suspect:
    """
    An entry that was not as it should be.

    `keys` are the rows at the source that it may be of, `identities` the same as changes name them; they grow where
    the journal shows others. An entry without a row at the source has none until then.
    """

    name: bytes
    keys: set[tuple[str, ...]] = field(default_factory=set)
    identities: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class Touched:
    """What the journal shows of a table since a look began, by entry and by row; `everything` after a truncate."""

    names: dict[bytes, set[tuple[str, ...]]] = field(default_factory=dict)
    identities: set[bytes] = field(default_factory=set)
    everything: bool = False

    def by(self, suspect: Suspect) -> bool:
        """Say whether something touched an entry, or a row that it may be of."""
        return self.everything or suspect.name in self.names or not suspect.identities.isdisjoint(self.identities)


@dataclass(slots=True)
class Wanted:
    """What should be held of some rows, of which rows each entry is, and the names of those that are refused."""

    values: dict[bytes, bytes | None] = field(default_factory=dict)
    suspects: dict[bytes, Suspect] = field(default_factory=dict)
    refused: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class Look:
    """What one look at some entries has seen; `end_lsn` is where it ended."""

    source: dict[bytes, bytes | None]
    held: dict[bytes, bytes | None]
    touched: Touched
    owed: Touched
    end_lsn: int


def judge(suspect: Suspect, differs: bool, touched: Touched, held: Touched) -> Verdict:
    """Say what a look has shown of an entry. `held` is what waits because its changes fail."""
    if not differs:
        return Verdict.EQUAL
    if touched.by(suspect):
        return Verdict.MOVING
    return Verdict.HELD if held.by(suspect) else Verdict.DRIFT


def seconds_before(look: int) -> float:
    """Return how long to wait before a look; the first is number 0, and comes at once."""
    return min(LOOK_SECONDS_FIRST * 3.0 ** (look - 1), LOOK_SECONDS_MAX) if look else 0.0


def riddles(before: Iterable[int], not_committing: Iterable[int], snapshot: str) -> frozenset[int]:
    """
    Return the transactions that may have written their commit before a mark, and that a snapshot does not see.

    `before` were running after the mark was written; some of them had surely not begun to commit later still.
    """
    seen = Snapshot.parse(snapshot)
    return frozenset(xid for xid in frozenset(before) - frozenset(not_committing) if not seen.sees(xid))
