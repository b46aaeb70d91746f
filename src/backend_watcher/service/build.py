"""Configuration becomes running objects: the one place where concrete classes meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from backend_watcher.capture.prepare import LogicalSettings
from backend_watcher.contracts import Transform
from backend_watcher.delivery.route import Route, Rule
from backend_watcher.delivery.subscription import Subscription
from backend_watcher.errors import ConfigError
from backend_watcher.events.change import Change
from backend_watcher.events.table import qualify
from backend_watcher.journal.sqlite import SqliteJournal
from backend_watcher.postgres.findings import Wish
from backend_watcher.postgres.names import parse_name
from backend_watcher.service.config import Config
from backend_watcher.service.declared import wanted_of
from backend_watcher.service.watcher import Wanted, Watcher


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything `supervise` needs, made from words and not yet opened."""

    subscriptions: tuple[Subscription, ...]
    settings: LogicalSettings
    journal: SqliteJournal
    wishes: Mapping[str, Wish]


def build(config: Config, watcher: Watcher | None, *, adopt_slot: bool = False) -> Plan:
    """Put the plan together. Raises ConfigError; touches nothing."""
    wanted = wanted_of(config, watcher)
    if not wanted:
        raise ConfigError(
            ["no subscription: nothing would be delivered"],
            remedy="Declare one with @watcher.on(…) or watcher.to(…), or as [[subscription]] in watcher.toml.",
        )
    subscriptions = tuple(_subscription(one, watcher) for one in wanted)
    wishes = wishes_of(wanted)
    settings = LogicalSettings(
        dsn=config.source.dsn,
        slot=config.source.slot,
        publication=config.source.publication,
        tables=tuple(sorted(wishes)),
        heartbeat_seconds=config.source.heartbeat_seconds,
        adopt_slot=adopt_slot,
        journal_name=str(config.journal.path),
    )
    journal = SqliteJournal(
        config.journal.path,
        quota_bytes=config.journal.quota_bytes,
        retain_seconds=config.journal.retain_seconds,
        retain_bytes=config.journal.retain_bytes,
    )
    return Plan(subscriptions, settings, journal, wishes)


def wishes_of(wanted: list[Wanted]) -> dict[str, Wish]:
    """Say, for each table by its full name, what the subscriptions need of it."""
    wishes: dict[str, Wish] = {}
    for one in wanted:
        for table in one.tables:
            name = full_name(table)
            before = wishes.get(name, Wish())
            wishes[name] = replace(before, old_values=before.old_values or bool(one.columns))
    return wishes


def full_name(table: str) -> str:
    """Return `schema.table` for a table as a user writes it. Raises ConfigError."""
    return qualify(*parse_name(table))


def _subscription(wanted: Wanted, watcher: Watcher | None) -> Subscription:
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
