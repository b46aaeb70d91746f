"""What a subscription is made of."""

from __future__ import annotations

import dataclasses

import pytest

from backend_watcher.delivery.batch import BatchLimits
from backend_watcher.delivery.route import Route, Rule
from backend_watcher.delivery.subscription import Options, Subscription
from backend_watcher.sinks.memory import Memory


def test_everything_has_a_limit_unless_said_otherwise() -> None:
    options = Subscription("cache", Route({"public.a": Rule("public.a")}), Memory()).options
    assert options == Options(8, BatchLimits(1000, 4 * 1024 * 1024, 0.0), 30.0, 10_000)


def test_it_does_not_change_while_it_runs() -> None:
    subscription = Subscription("cache", Route({}), Memory())
    with pytest.raises(dataclasses.FrozenInstanceError):
        subscription.name = "other"  # type: ignore[misc]
