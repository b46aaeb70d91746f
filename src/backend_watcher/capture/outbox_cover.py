"""
Did the outbox's triggers cover every watched table all the time? Compared from one look to the next. Pure.

A row that is written while its table has no trigger leaves nothing behind, and no message says so. So it is not enough
that the triggers are there now: one that was dropped and made again has another OID. What cannot be explained stops.
A table that was dropped stops nobody; one that was made again under its name needs its triggers again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

ALWAYS = "A"
"""pg_trigger.tgenabled of a trigger that fires whatever the session's replication role is."""


@dataclass(frozen=True, slots=True)
class Covered:
    """A table: its OID, and our triggers on it by their names, each with its OID and when it fires."""

    oid: int
    triggers: Mapping[str, tuple[int, str]]


def to_note(tables: Mapping[str, Covered]) -> str:
    """Write it as a note of the journal."""
    return json.dumps({name: [one.oid, {n: list(t) for n, t in one.triggers.items()}] for name, one in tables.items()})


def from_note(note: str | None) -> dict[str, Covered]:
    """Read a note; nothing where there is none, or one of another time."""
    try:
        read = json.loads(note or "{}")
        return {
            name: Covered(int(oid), {n: (int(t[0]), str(t[1])) for n, t in triggers.items()})
            for name, (oid, triggers) in read.items()
        }
    except (ValueError, TypeError, AttributeError, LookupError):
        return {}


def gaps(before: Mapping[str, Covered], now: Mapping[str, Covered], wanted: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Say in a line each what may have kept rows from being written down; `wanted` names each table's triggers."""
    lines = []
    for name, triggers in wanted.items():
        there = now.get(name)
        if there is None:
            continue
        was = before.get(name)
        for trigger in triggers:
            line = _gap(trigger, was if was is not None and was.oid == there.oid else None, there)
            if line is not None:
                lines.append(f"table {name} {line}")
                break
    return lines


def _gap(trigger: str, was: Covered | None, now: Covered) -> str | None:
    found = now.triggers.get(trigger)
    if found is None:
        return "has lost its trigger" if was is not None else "has no trigger of the outbox"
    if found[1] != ALWAYS:
        return "has its trigger disabled, or not always enabled"
    if was is not None and trigger in was.triggers and was.triggers[trigger][0] != found[0]:
        return "had its trigger dropped and made again"
    return None
