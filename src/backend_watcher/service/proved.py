"""What the journal's notes say of sinks that are read back, in plain values, for `watcher status`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend_watcher.reconcile import alarm, rounds, share


def proved(notes: Mapping[str, str], subscription: str) -> dict[str, Any]:
    """Return the share that was visible, the entries that differ, and the scans of a subscription."""
    visible = share.load(notes.get(share.note_name(subscription)))
    alarms = alarm.load(notes.get(alarm.note_name(subscription)))
    scans = rounds.load(notes.get(rounds.note_name(subscription)))
    return {
        "read_back": visible.as_plain() if visible is not None else None,
        "drift": tuple(one.as_plain() for one in alarms.kept),
        "scans": scans.as_plain() if scans != rounds.Scans() else None,
    }
