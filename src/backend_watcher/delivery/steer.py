"""What people ask of a subscription, as it is kept in the journal's notes: a pause, and a replay. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import msgspec

from backend_watcher.events.change import Change
from backend_watcher.events.position import Position


@dataclass(frozen=True, slots=True)
class Pause:
    """Who paused a subscription, when (seconds since 1970), and why."""

    at: float
    by: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Replay:
    """
    A past range of the journal, to be delivered again and marked as replayed: after `after`, up to and with `to`.

    `table` is a full name and `key` as `matches` compares it; None takes all. `reached` is how far it has come.
    """

    after: Position
    to: Position
    table: str | None = None
    key: str | None = None
    by: str = ""
    at: float = 0.0
    reached: Position | None = None

    @property
    def begin(self) -> Position:
        """Where to go on."""
        return self.after if self.reached is None else self.reached

    def matches(self, change: Change) -> bool:
        """Say whether a change is asked for. A truncate of the table is, whatever the key."""
        if change.position > self.to or (self.table is not None and change.table.full_name != self.table):
            return False
        if self.key is None or not change.identities():
            return True
        return key_matches(change.key, self.key) or (
            change.key_before is not None and key_matches(change.key_before, self.key)
        )

    def went_to(self, position: Position) -> Replay:
        """Return the replay as it stands after some of it is done."""
        return replace(self, reached=position)


def key_matches(key: tuple[Any, ...], wanted: str) -> bool:
    """Compare a key with what a person typed: `42`, or for a key of several columns its values as `a,b`."""
    return ",".join(str(value) for value in key) == wanted


def dump(note: Pause | Replay) -> str:
    """Write a note."""
    return msgspec.json.encode(asdict(note)).decode()


def load_pause(text: str | None) -> Pause | None:
    """Read a note; None where there is none. What cannot be read counts as a pause: nobody resumed it."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=Pause)
    except msgspec.MsgspecError:
        return Pause(0.0, "unknown", "the note about the pause cannot be read")


def load_replay(text: str | None) -> Replay | None:
    """Read a note; None where there is none, or none that can be read."""
    if text is None:
        return None
    try:
        raw = msgspec.json.decode(text, type=dict[str, Any])
        places = {name: Position(*raw[name]) if raw[name] is not None else None for name in ("after", "to", "reached")}
        return Replay(**{**raw, **places})
    except (msgspec.MsgspecError, TypeError, KeyError):
        return None


def pause_note(subscription: str) -> str:
    """Return the name of the journal's note about a pause."""
    return f"paused:{subscription}"


def replay_note(subscription: str) -> str:
    """Return the name of the journal's note about a replay."""
    return f"replay:{subscription}"
