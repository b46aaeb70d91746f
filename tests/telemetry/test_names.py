"""The table of metrics keeps Prometheus' conventions, and few labels."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backend_watcher.telemetry.names import METRICS, Metric

LABELS = {"version", "compiled", "kind", "subscription", "within_seconds", "found"}
UNITS = ("_seconds", "_bytes", "_total", "_info", "_keys", "_changes", "_entries", "_blocks")
STATES = {"watcher_running", "watcher_source_streaming", "watcher_journal_full"}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_each_is_named_by_the_conventions(metric: Metric) -> None:
    assert re.fullmatch(r"watcher(_[a-z]+)+", metric.name)
    assert metric.name.endswith(UNITS) or metric.name in STATES
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    assert (metric.kind == "histogram") == bool(metric.bounds)
    assert list(metric.bounds) == sorted(set(metric.bounds))
    assert set(metric.labels) <= LABELS
    assert metric.help.endswith(".")


def test_no_name_is_there_twice() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_each_is_in_the_documentation_as_it_is() -> None:
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `watcher_") and line.count("|") == 5]
    assert rows == [
        f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.help} |"
        for one in METRICS
    ]
