"""All subscriptions in one list: those of the program, as the settings change them, and those of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from backend_watcher.service.config import Config, SubscriptionConfig
from backend_watcher.service.feeding import NAMES, fed
from backend_watcher.service.readable import refuse_unread
from backend_watcher.service.watcher import Wanted, Watcher


def wanted_of(config: Config, watcher: Watcher | None) -> list[Wanted]:
    """Return every subscription as it is to run. Raises ConfigError for options that a sink refuses, or cannot keep."""
    declared = [_overridden(one, config.overrides.get(one.name, {})) for one in (watcher.wanted if watcher else [])]
    # A Watcher of its own reads the settings' words just as it reads a program's.
    settings = Watcher(config.name)
    for entry in config.subscriptions:
        _declare(settings, entry)
    every = declared + settings.wanted
    refuse_unread(every)
    return every


def _declare(watcher: Watcher, entry: SubscriptionConfig) -> None:
    sink = entry.make_sink()
    if hasattr(sink, "timeout_seconds"):
        # It times itself, by the limit that stands in the settings.
        sink.timeout_seconds = entry.timeout_seconds
    watcher.to(
        sink,
        table=entry.tables,
        insert=entry.insert,
        update=entry.update,
        delete=entry.delete,
        truncate=entry.truncate,
        name=entry.name,
        batch=entry.batch,
        **{name: getattr(entry, name) for name in NAMES},
    )


def _overridden(wanted: Wanted, override: Mapping[str, Any]) -> Wanted:
    """Return the subscription with other options; what is not named stays as declared."""
    options = fed(wanted.options, override)
    if options.timeout_seconds != wanted.options.timeout_seconds and hasattr(wanted.sink, "timeout_seconds"):
        wanted.sink.timeout_seconds = options.timeout_seconds
    where = {name: override[name] for name in ("run_in", "processes", "memory_bytes") if name in override}
    return replace(wanted, options=options, **where)
