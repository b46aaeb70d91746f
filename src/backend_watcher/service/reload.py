"""
What other settings change of a plan that runs: pure.

SIGHUP reads `watcher.toml` and the environment again. A program's code is not loaded again, and the source, the journal
and the name stay: a restart is for these, and takes a second.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from backend_watcher.service.build import Plan
from backend_watcher.service.config import Config


@dataclass(frozen=True, slots=True)
class Change:
    """The plan to go on with, whether capture has to begin again, and what was left as it is."""

    plan: Plan
    recapture: bool
    left: tuple[str, ...]


def change(old_config: Config, old: Plan, config: Config, new: Plan) -> Change:
    """
    Return what is to become of the old plan.

    A subscription whose words are the same stays the same object, so that it goes on undisturbed.
    """
    before = {subscription.name: subscription for subscription in old.subscriptions}
    subscriptions = tuple(
        before[one.name] if one.name in before and _is_same(one.name, old_config, config) else one
        for one in new.subscriptions
    )
    left = [
        name
        for name, was, now in (
            ("name", old_config.name, config.name),
            ("source", old_config.source, config.source),
            ("journal", old_config.journal, config.journal),
            ("web", old_config.web, config.web),
        )
        if was != now
    ]
    settings = replace(old.settings, tables=new.settings.tables)
    plan = replace(old, subscriptions=subscriptions, settings=settings, wishes=new.wishes)
    return Change(plan, settings.tables != old.settings.tables, tuple(left))


def _is_same(name: str, old: Config, new: Config) -> bool:
    """Say whether the words about a subscription are the same; one of the program has none but its overrides."""
    before = next((one for one in old.subscriptions if one.name == name), None)
    now = next((one for one in new.subscriptions if one.name == name), None)
    return before == now and old.overrides.get(name) == new.overrides.get(name)
