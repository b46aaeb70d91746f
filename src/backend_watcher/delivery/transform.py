"""What stands between the journal and a sink: the predicate, and functions that rename, mask or drop. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from backend_watcher.contracts import Transform
from backend_watcher.delivery.route import Route
from backend_watcher.errors import HandlerError
from backend_watcher.events.change import Change


def transformed(route: Route, transforms: Sequence[Transform], change: Change) -> Change | None:
    """
    Return what the transforms make of a change, None where they or the predicate drop it.

    Raises HandlerError where one of them raises, or returns something else.
    """
    if route.has_predicates and not _agrees(route, change):
        return None
    current: Change | None = change
    for transform in transforms:
        if current is None:
            break
        current = _one(transform, current)
    return current


def _agrees(route: Route, change: Change) -> bool:
    try:
        return route.agrees(change)
    except Exception as error:
        raise HandlerError(f"the predicate at {change.position}: {type(error).__name__}: {error}") from error


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
