"""
A change that PostgreSQL itself cannot send: kept as a note of the journal, told of, and tried rarely. Pure.

A bytea of more than half a gigabyte has no text that fits into PostgreSQL's memory, a character may have no place in
UTF-8: the server then fails at the same change each time, and nothing behind it comes. A person decides: mend the
server, or give up that one transaction with `watcher skip`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from backend_watcher.errors import UndecodableChange
from backend_watcher.events.position import format_lsn

NOTE = "undecodable"
STATE = "undecodable"
TRIES_SECONDS = (5.0, 900.0)
"""Until the second try, and between all later ones: at most six in an hour, because each decodes it all again."""


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Where it is; `commit_lsn` is None while PostgreSQL has not said where its transaction commits."""

    change_lsn: int
    commit_lsn: int | None
    said: str

    @classmethod
    def of(cls, error: UndecodableChange) -> Undecodable:
        """Take it from the error."""
        return cls(error.change_lsn, error.commit_lsn, error.message)

    @classmethod
    def from_note(cls, note: str | None) -> Undecodable | None:
        """Read a note; None where there is none."""
        return cls(**json.loads(note)) if note else None

    def to_note(self) -> str:
        """Write it as a note of the journal."""
        return json.dumps(asdict(self), sort_keys=True)

    def words(self, delay_seconds: float) -> str:
        """Say where it is and what can be done."""
        where = f"the change at {format_lsn(self.change_lsn)}"
        again = f"again in {delay_seconds:.0f} s"
        if self.commit_lsn is None:
            return f"{where} cannot be sent: {self.said}; {again}"
        commit = format_lsn(self.commit_lsn)
        return (
            f"{where}, of the transaction that commits at {commit}, cannot be sent: {self.said}; {again}, or without "
            f"the rest of that transaction: watcher skip {commit} --reason '…'"
        )
