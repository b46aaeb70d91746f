"""A subscription as it was declared becomes one that can run: its route by full names, and the transforms it passes."""

from __future__ import annotations

from backend_watcher.contracts import Transform
from backend_watcher.delivery.route import Route, Rule
from backend_watcher.delivery.subscription import Subscription
from backend_watcher.events.change import Change
from backend_watcher.events.table import qualify
from backend_watcher.postgres.names import parse_name
from backend_watcher.service.watcher import Wanted, Watcher


def full_name(table: str) -> str:
    """Return `schema.table` for a table as a user writes it. Raises ConfigError."""
    return qualify(*parse_name(table))


def subscription_of(wanted: Wanted, watcher: Watcher | None) -> Subscription:
    """Return the subscription, with the transforms of its program."""
    names = {full_name(table): table for table in wanted.tables}
    rules: dict[str, Rule] = {name: wanted.rule(name) for name in names}
    transforms = list(wanted.transforms)
    if watcher is not None:
        shared = [
            (frozenset(full_name(table) for table in tables), transform) for tables, transform in watcher.transforms
        ]
        # Shared transforms come first: what they mask, no subscription ever sees.
        transforms = [_limited(tables, transform) for tables, transform in shared if tables & rules.keys()] + transforms
    return Subscription(wanted.name, Route(rules), wanted.sink, tuple(transforms), wanted.options)


def _limited(tables: frozenset[str], transform: Transform) -> Transform:
    """Return the transform for some tables only."""

    def limited(change: Change) -> Change | None:
        return transform(change) if change.table.full_name in tables else change

    limited.__name__ = getattr(transform, "__name__", type(transform).__name__)
    return limited
