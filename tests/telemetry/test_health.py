"""Ready is who delivers; whom a person paused is as that person wants it."""

from __future__ import annotations

import pytest

from backend_watcher.telemetry.health import readiness


@pytest.mark.parametrize("source", ["streaming", "wal_warning", "prepared_open"])
def test_ready_where_changes_come_and_are_delivered(source: str) -> None:
    found = readiness(source, {"a": "running", "b": "replaying", "c": "paused"})
    assert found.is_ready
    assert found.reasons == ()


@pytest.mark.parametrize("source", ["starting", "connecting", "waiting", "undecodable", "stopped"])
def test_not_without_a_source(source: str) -> None:
    assert readiness(source, {"a": "running"}).reasons == (f"source: {source}",)


@pytest.mark.parametrize("state", ["retrying", "full", "stopped", "stalled", "stuck"])
def test_not_while_a_subscription_does_not_deliver(state: str) -> None:
    assert readiness("streaming", {"b": "running", "a": state}).reasons == (f"subscription a: {state}",)
