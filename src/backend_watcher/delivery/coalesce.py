"""Only the newest change of each key within a batch: for sinks that want the last state and not the way there. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from backend_watcher.events.change import Change
from backend_watcher.events.row import UNCHANGED


def coalesce(changes: Sequence[Change]) -> tuple[list[Change], list[list[int]]]:
    """
    Return the changes that are left, in order, and for each the indexes of those it stands for, itself last.

    Values that the newest change leaves out as UNCHANGED are filled in from the ones before it. A change that
    concerns more than one key (a truncate, or an update of the key) is left as it is, and nothing before it is taken
    together with anything after it.
    """
    left: list[Change | None] = []
    stands_for: list[list[int]] = []
    newest: dict[tuple[str, bytes], int] = {}
    for index, change in enumerate(changes):
        keys = change.identities()
        if len(keys) != 1:
            newest.clear()
            left.append(change)
            stands_for.append([index])
            continue
        at = newest.get(keys[0])
        covered: list[int] = []
        before = None if at is None else left[at]
        # An older one comes after a newer one where it is replayed: it does not stand for that.
        if at is not None and before is not None and before.position <= change.position:
            change = _filled(change, before)
            covered, left[at] = stands_for[at], None
        newest[keys[0]] = len(left)
        left.append(change)
        stands_for.append([*covered, index])
    pairs = [(change, places) for change, places in zip(left, stands_for, strict=True) if change is not None]
    return [change for change, _ in pairs], [places for _, places in pairs]


def _filled(change: Change, before: Change) -> Change:
    """Return the change with the values that only an older one has."""
    new, old = change.new, before.new
    if new is None or old is None:
        return change
    missing = [name for name in new if new.raw(name) is UNCHANGED and old.raw(name) is not UNCHANGED]
    if not missing:
        return change
    return change.replace(new={**new.to_dict(), **{name: old[name] for name in missing}})
