"""Entries of a sink that differ from the source and stay so, until a later look finds them equal. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from backend_watcher.reconcile.plan import Suspect
from backend_watcher.reconcile.sampling import Sample

ALARMS_MAX = 100
"""Entries of one subscription that are kept in mind; with so many `watcher verify` is what is wanted."""


@dataclass(slots=True)
class Doubt:
    """
    An entry that is to be looked at; `row` is what its row is found by, by column, `identity` how changes name it.

    What the journal has from `since_lsn` on may have touched it without our knowing.
    """

    table: str
    name: bytes
    row: Mapping[str, str]
    identity: bytes
    since_lsn: int

    def suspect(self, key: Sequence[str]) -> Suspect | None:
        """Return it as a look wants it, None where its row cannot be found by these columns."""
        if any(column not in self.row for column in key):
            return None
        return Suspect(self.name, {tuple(self.row[column] for column in key)}, {self.identity})


def doubt_of(sample: Sample) -> Doubt:
    """Return what is to be looked at because of a sample: what came after its own change is not known."""
    since = sample.position.commit_lsn + 1
    return Doubt(sample.table.full_name, sample.name, sample.row, sample.identity, since)


@dataclass(slots=True)
class Alarm:
    """An entry that differs, in what way, and since when that is known, in seconds since 1970."""

    doubt: Doubt
    kind: str
    since: float

    def as_plain(self) -> dict[str, Any]:
        """Return what people are shown."""
        entry = self.doubt.name.decode("utf-8", "replace")
        return {"table": self.doubt.table, "entry": entry, "kind": self.kind, "since": self.since}


@dataclass(slots=True)
class Alarms:
    """The alarms of one subscription; no entry has two."""

    kept: list[Alarm] = field(default_factory=list)

    def find(self, table: str, name: bytes) -> Alarm | None:
        """Return the alarm of an entry."""
        return next((one for one in self.kept if (one.doubt.table, one.doubt.name) == (table, name)), None)

    def differs(self, doubt: Doubt, kind: str, now: float) -> bool:
        """Note that an entry differs; say whether that is news."""
        there = self.find(doubt.table, doubt.name)
        if there is not None:
            there.doubt, there.kind = doubt, kind
            return False
        if len(self.kept) < ALARMS_MAX:
            self.kept.append(Alarm(doubt, kind, now))
            return True
        return False

    def is_equal(self, table: str, name: bytes) -> Alarm | None:
        """Note that an entry is as it should be; return the alarm that is over by that."""
        there = self.find(table, name)
        if there is not None:
            self.kept.remove(there)
        return there


def note_name(subscription: str) -> str:
    """Return the name of the journal's note that holds the alarms of a subscription."""
    return f"drift:{subscription}"


def dump(alarms: Alarms) -> str | None:
    """Write a note, None where there is nothing to keep."""
    return msgspec.json.encode(alarms).decode() if alarms.kept else None


def load(text: str | None) -> Alarms:
    """Read a note; what cannot be read is nothing."""
    try:
        return Alarms() if text is None else msgspec.json.decode(text, type=Alarms)
    except msgspec.MsgspecError:
        return Alarms()
