"""A function for messages as one for changes, which is what subscriptions deliver."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from backend_watcher.delivery.route import Predicate
from backend_watcher.events.change import Change
from backend_watcher.events.message import Message
from backend_watcher.sinks.handler import is_async


def as_of_changes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of a change that calls this one with its message; async if this one is."""
    if not callable(function):
        return function  # the handler says what is wrong with it
    if is_async(function):

        async def told(change: Change) -> None:
            await function(Message(change))

    else:

        def told(change: Change) -> None:  # type: ignore[misc]
            function(Message(change))

    return functools.update_wrapper(told, function)


def of_prefix(prefix: str) -> Predicate:
    """Return a predicate for the messages of one prefix."""

    def is_of_prefix(change: Change) -> bool:
        return bool(change.row["prefix"] == prefix)

    return is_of_prefix
