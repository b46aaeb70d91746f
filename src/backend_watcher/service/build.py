"""Configuration becomes running objects: the one place where concrete classes meet."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

from backend_watcher.delivery.route import Route
from backend_watcher.delivery.subscription import Subscription
from backend_watcher.errors import ConfigError
from backend_watcher.events.message import FULL_NAME as MESSAGES
from backend_watcher.journal.sqlite import SqliteJournal
from backend_watcher.postgres.findings import Wish
from backend_watcher.service.backfilling import begins_with_rows, refuse_rows
from backend_watcher.service.config import Config
from backend_watcher.service.declared import wanted_of
from backend_watcher.service.readable import refuse_scans_without_slot
from backend_watcher.service.sources import SourceSettings, settings_of, spill_of
from backend_watcher.service.subscribed import full_name, subscription_of
from backend_watcher.service.watcher import SchemaFunction, Wanted, Watcher
from backend_watcher.sinks.process import ProcessHandler
from backend_watcher.sinks.process_pool import Workers
from backend_watcher.sinks.process_wire import Setup

IN_FLIGHT_BYTES = 96 << 20
"""What all subscriptions together may have read and not settled; the journal's own buffers take about as much."""

IN_FLIGHT_BYTES_MIN = 1 << 20

__all__ = ["Plan", "build", "full_name", "refuse_nothing", "spill_of", "wants_messages", "wishes_of"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything `supervise` needs, made from words and not yet opened."""

    subscriptions: tuple[Subscription, ...]
    settings: SourceSettings
    journal: SqliteJournal
    wishes: Mapping[str, Wish]
    schema_functions: tuple[SchemaFunction, ...] = ()


def build(
    config: Config,
    watcher: Watcher | None,
    *,
    adopt_slot: bool = False,
    target: str | None = None,
    workers: int = 0,
) -> Plan:
    """
    Put the plan together. Raises ConfigError; touches nothing.

    `target` is the program as `load_watcher` takes it. With `workers` the functions run in so many processes that
    they share, but for those that say where they run.
    """
    wanted = wanted_of(config, watcher)
    refuse_nothing(wanted)
    placed = _Places(wanted, target, workers)
    subscriptions = tuple(_within_memory(placed.subscription(one, watcher), len(wanted)) for one in wanted)
    wishes = wishes_of(wanted)
    if tables := begins_with_rows(subscriptions):
        refuse_rows(config.source, tables)
    refuse_scans_without_slot(config.source.kind, subscriptions)
    settings = settings_of(config, tuple(sorted(wishes)), messages=wants_messages(wanted), adopt_slot=adopt_slot)
    journal = SqliteJournal(
        config.journal.path,
        quota_bytes=config.journal.quota_bytes,
        retain_seconds=config.journal.retain_seconds,
        retain_bytes=config.journal.retain_bytes,
    )
    told = tuple(watcher.schema_functions) if watcher is not None else ()
    return Plan(subscriptions, settings, journal, wishes, told)


def refuse_nothing(wanted: list[Wanted]) -> None:
    """Raise ConfigError where nothing is wanted."""
    if not wanted:
        raise ConfigError(
            ["no subscription: nothing would be delivered"],
            remedy="Declare one with @watcher.on(…) or watcher.to(…), or as [[subscription]] in watcher.toml.",
        )


def wants_messages(wanted: list[Wanted]) -> bool:
    """Say whether any subscription hears messages."""
    return any(full_name(table) == MESSAGES for one in wanted for table in one.tables)


def wishes_of(wanted: list[Wanted]) -> dict[str, Wish]:
    """Say, for each table by its full name, what the subscriptions need of it."""
    wishes: dict[str, Wish] = {}
    for one in wanted:
        for table in one.tables:
            name = full_name(table)
            if name == MESSAGES:
                continue  # they come with every publication
            before = wishes.get(name, Wish())
            wishes[name] = replace(before, old_values=before.old_values or bool(one.columns))
    return wishes


def _within_memory(subscription: Subscription, count: int) -> Subscription:
    """Give each subscription its share of what all of them may have under way."""
    share = max(IN_FLIGHT_BYTES // count, IN_FLIGHT_BYTES_MIN)
    limit = min(subscription.options.max_in_flight_bytes, share)
    return replace(subscription, options=replace(subscription.options, max_in_flight_bytes=limit))


class _Places:
    """Decides where each function runs. Raises ConfigError for what cannot be."""

    def __init__(self, wanted: list[Wanted], target: str | None, workers: int) -> None:
        self._target = target
        shared = workers > 0 and any(one.function is not None and one.run_in is None for one in wanted)
        self._shared = self._workers(workers, None) if shared else None
        faults = [fault for one in wanted if (fault := _misplaced(one)) is not None]
        if faults:
            raise ConfigError(faults)

    def subscription(self, wanted: Wanted, watcher: Watcher | None) -> Subscription:
        """Return the subscription as the watcher itself is to run it."""
        found = subscription_of(wanted, watcher)
        if wanted.function is None or wanted.run_in in ("loop", "thread"):
            return found
        if wanted.run_in == "process":
            workers = self._workers(wanted.processes, wanted.memory_bytes)
        elif self._shared is not None:
            workers = self._shared
        else:
            return found
        sink = ProcessHandler(
            wanted.name,
            workers,
            batch=bool(wanted.sink.describe()["batch"]),
            timeout_seconds=wanted.options.timeout_seconds,
            coalesce=wanted.options.coalesce,
        )
        # What comes before the function is done where the function is: changes travel as the source sent them.
        rules = {name: replace(rule, predicate=None) for name, rule in found.route.rules.items()}
        options = replace(found.options, coalesce=False)
        return replace(found, route=Route(rules), sink=sink, transforms=(), options=options)

    def _workers(self, processes: int, memory_bytes: int | None) -> Workers:
        if self._target is None:
            raise ConfigError(
                ["functions cannot run in processes of their own: nobody knows which program to load there"],
                remedy="Run it with `watcher run shop.py`.",
            )
        return Workers(Setup(self._target, list(sys.path), os.getpid(), memory_bytes), processes)


def _misplaced(wanted: Wanted) -> str | None:
    there = wanted.sink.describe().get("runs_in")
    if wanted.function is None or wanted.run_in in (None, "process", there):
        return None
    kind = "an async def runs on the loop" if there == "loop" else "a plain def runs in a thread"
    return f"subscription {wanted.name!r}: run_in is {wanted.run_in!r}; {kind}, or in a process"
