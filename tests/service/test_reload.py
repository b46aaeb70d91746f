"""Other settings for a plan that runs: what is the same stays the same object, and what cannot change is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backend_watcher.events.change import Change
from backend_watcher.service.build import Plan, build
from backend_watcher.service.config import Config, JournalConfig, SourceConfig, SubscriptionConfig
from backend_watcher.service.reload import change
from backend_watcher.service.watcher import Watcher

WATCHER = Watcher("shop")


@WATCHER.on("orders")
async def note(change: Change) -> None: ...


def config(*entries: SubscriptionConfig, **more: object) -> Config:
    source = SourceConfig("postgresql://x", "watcher_shop", "watcher_shop", 10.0)
    journal = JournalConfig(Path("shop.journal"), 1 << 30, 3600.0, 1 << 30)
    return replace(Config("shop", source, journal, tuple(entries)), **more)  # type: ignore[arg-type]


def entry(name: str, table: str = "products", **more: object) -> SubscriptionConfig:
    return replace(SubscriptionConfig(name, "stdout", (table,)), **more)  # type: ignore[arg-type]


def same(old: Plan, new: Plan) -> set[str]:
    before = {one.name: one for one in old.subscriptions}
    return {one.name for one in new.subscriptions if before.get(one.name) is one}


def test_what_has_the_same_words_goes_on_undisturbed() -> None:
    was, now = config(entry("a"), entry("b")), config(entry("a"), entry("b", batch=7), entry("c"))
    old = build(was, WATCHER)
    told = change(was, old, now, build(now, WATCHER))
    assert same(old, told.plan) == {"note", "a"}
    assert [one.name for one in told.plan.subscriptions] == ["note", "a", "b", "c"]
    assert (told.recapture, told.left) == (False, ())
    assert told.plan.journal is old.journal


def test_what_is_gone_is_gone() -> None:
    was, now = config(entry("a"), entry("b")), config(entry("b"))
    old = build(was, WATCHER)
    assert [one.name for one in change(was, old, now, build(now, WATCHER)).plan.subscriptions] == ["note", "b"]


@pytest.mark.parametrize("override", [{"batch": 9}, {"attempts": 3}])
def test_an_override_changes_what_the_program_declares(override: dict[str, object]) -> None:
    was, now = config(entry("a")), config(entry("a"), overrides={"note": override})
    old = build(was, WATCHER)
    assert same(old, change(was, old, now, build(now, WATCHER)).plan) == {"a"}


def test_another_table_lets_capture_begin_again() -> None:
    was, now = config(entry("a")), config(entry("a"), entry("b", "sellers"))
    old = build(was, WATCHER)
    told = change(was, old, now, build(now, WATCHER))
    assert told.recapture
    assert told.plan.settings.tables == ("public.orders", "public.products", "public.sellers")


def test_what_takes_a_restart_is_left_and_said() -> None:
    was = config(entry("a"))
    now = replace(was, name="store", source=replace(was.source, slot="other"))
    old = build(was, WATCHER)
    told = change(was, old, now, build(now, WATCHER))
    assert told.left == ("name", "source")
    assert (told.plan.settings, told.plan.journal) == (old.settings, old.journal)
