"""Functions from a change to a change, in a row: rename, mask, filter. Pure, as they must be."""

from __future__ import annotations

from collections.abc import Sequence

from backend_watcher.contracts import Transform
from backend_watcher.errors import HandlerError
from backend_watcher.events.change import Change


def apply(transforms: Sequence[Transform], changes: Sequence[Change]) -> Sequence[Change]:
    """Return what the transforms make of the changes; None drops one. Raises HandlerError for a bad transform."""
    if not transforms:
        return changes
    result = []
    for change in changes:
        current: Change | None = change
        for transform in transforms:
            if current is None:
                break
            current = _one(transform, current)
        if current is not None:
            result.append(current)
    return result


def _one(transform: Transform, change: Change) -> Change | None:
    name = getattr(transform, "__name__", type(transform).__name__)
    try:
        made = transform(change)
    except Exception as error:
        raise HandlerError(f"transform {name} at {change.position}: {type(error).__name__}: {error}") from error
    if made is not None and not isinstance(made, Change):
        kind = type(made).__name__
        raise HandlerError(f"transform {name} at {change.position} returned {kind}, not a Change or None")
    return made
