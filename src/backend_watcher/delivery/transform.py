"""What stands between the journal and a sink: the predicate, and functions that rename, mask or drop. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from backend_watcher.contracts import Transform
from backend_watcher.delivery.route import Route, is_repair
from backend_watcher.errors import HandlerError
from backend_watcher.events.change import READ, Change


def transformed(route: Route, transforms: Sequence[Transform], change: Change) -> Change | None:
    """
    Return what the transforms make of a change, None where they or the predicate drop it.

    A row that was read to put a sink right, and is dropped, must not stand there: it becomes a delete, and of one that
    is not there the predicate is not asked. Raises HandlerError where one of them raises, or returns something else.
    """
    if route.has_predicates or transforms:
        made = _passed(route, transforms, change)
        if made is None and change.code == READ and is_repair(change):
            made = _passed(route, transforms, change.as_delete(change.transaction, change.ordinal))
        return made
    return change


def _passed(route: Route, transforms: Sequence[Transform], change: Change) -> Change | None:
    if route.has_predicates and not (change.derived and is_repair(change)) and not _agrees(route, change):
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
