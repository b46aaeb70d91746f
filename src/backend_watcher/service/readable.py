"""Which subscriptions can be read back, with what, and settings that ask for it where it cannot be."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from backend_watcher.contracts import Sink, TransactionalSink
from backend_watcher.delivery.route import Rule
from backend_watcher.delivery.subscription import Options, Subscription
from backend_watcher.errors import ConfigError
from backend_watcher.events.message import FULL_NAME as MESSAGES
from backend_watcher.reconcile.follow import Follower
from backend_watcher.reconcile.looks import Looks
from backend_watcher.reconcile.readback import Tap
from backend_watcher.reconcile.source import Source
from backend_watcher.reconcile.verify import Verification
from backend_watcher.service.watcher import Wanted
from backend_watcher.verifiable import Verifiable

READ_BACK_PER_SECOND = 10.0
"""How many changes are looked for where nothing else is said: their entries are one read of the sink a second."""


def why_unread(sink: Sink, rules: Iterable[Rule]) -> str:
    """Say why a sink cannot be read back for a subscription with these rules; "" where it can."""
    if not isinstance(sink, Verifiable):
        return f"a sink of the kind {sink.describe().get('kind')!s} cannot be read back"
    if not all(rule.takes_all for rule in rules):
        return "it takes some operations only, so what its sink should hold cannot be said"
    return ""


def read_back_per_second(subscription: Subscription) -> float:
    """Return how many changes a second are looked for, 0 where none can be."""
    wished = subscription.options.read_back_per_second
    if why_unread(subscription.sink, subscription.route.rules.values()):
        return 0.0
    return READ_BACK_PER_SECOND if wished is None else wished


def tables_of(subscription: Subscription) -> Sequence[str]:
    """Return the tables of a subscription, by their full names, in the order in which they are scanned."""
    return sorted(subscription.route.tables - {MESSAGES})


def refuse_unread(wanted: Iterable[Wanted]) -> None:
    """Raise ConfigError for subscriptions that are to be read back and cannot be."""
    faults = []
    for one in wanted:
        reason = why_unread(one.sink, [one.rule(table) for table in one.tables])
        faults += [f"subscription {one.name!r}: {name}: {reason}" for name in _asked(one.options) if reason]
    if faults:
        raise ConfigError(faults, remedy="Leave it out there. Caches and replicas of whole tables can be read back.")


def refuse_scans_without_slot(kind: str, subscriptions: Iterable[Subscription]) -> None:
    """Raise ConfigError where rows are to be compared although no stream says what happened to them meanwhile."""
    if kind == "logical":
        return
    asked = [one.name for one in subscriptions if one.options.verify_every_seconds]
    if asked:
        raise ConfigError(
            [f"subscription {name!r}: verify_every_seconds wants source.kind = 'logical'" for name in asked],
            remedy="Leave it out.",
        )


def _asked(options: Options) -> list[str]:
    """Return the settings by which somebody asks for it."""
    given = {
        "read_back_per_second": options.read_back_per_second,
        "verify_every_seconds": options.verify_every_seconds,
    }
    return [name for name, value in given.items() if value]


@dataclass(frozen=True, slots=True)
class Readable:
    """A subscription, a copy of its sink that was never opened, and what chooses of what is delivered, if anything."""

    subscription: Subscription
    pristine: Sink
    tap: Tap | None

    @property
    def name(self) -> str:
        """The name of the subscription."""
        return self.subscription.name

    def reader(self) -> Verifiable:
        """Make a sink to read with: its connections are its own, so that delivery does not feel it."""
        sink = copy.deepcopy(self.pristine)
        if isinstance(sink, TransactionalSink):
            sink.belongs_to(self.name)
        assert isinstance(sink, Verifiable)
        return sink

    def verification(self, source: Source, sink: Verifiable, follower: Follower, **limits: Any) -> Verification:
        """Return what compares a table with what its rows are delivered as."""
        one = self.subscription
        as_they_are = [table for table in one.route.tables if one.leaves_as_they_are(table)]
        return Verification(self.name, source, sink, one.passed, follower, as_they_are=as_they_are, **limits)

    def looks(self, source: Source, sink: Verifiable, follower: Follower) -> Looks:
        """Return what looks at single entries."""
        return Looks(source, sink, self.subscription.passed, follower)
