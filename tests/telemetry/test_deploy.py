"""The alert rules and the dashboard speak of metrics that there are; Prometheus' own tool agrees where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from backend_watcher.telemetry.metrics import Metrics
from backend_watcher.telemetry.names import METRICS
from skips import NO_LINTER

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = DEPLOY / "alerts.yml"
DASHBOARD = DEPLOY / "grafana.json"
PROMTOOL = shutil.which("promtool")
SERIES = {
    series
    for metric in METRICS
    for series in (
        [f"{metric.name}_{end}" for end in ("bucket", "sum", "count")] if metric.kind == "histogram" else [metric.name]
    )
}


def spoken_of(text: str) -> set[str]:
    return set(re.findall(r"\bwatcher_[a-z_]+\b", text))


def test_the_rules_speak_of_metrics_that_there_are() -> None:
    found = spoken_of("\n".join(re.findall(r"expr: (.*)", ALERTS.read_text())))
    assert len(found) >= 7
    assert found <= SERIES


def test_each_panel_asks_for_metrics_that_there_are() -> None:
    board = json.loads(DASHBOARD.read_text())
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    for panel in board["panels"]:
        assert panel["description"]
        assert [target["refId"] for target in panel["targets"]] == [chr(65 + n) for n in range(len(panel["targets"]))]
        for target in panel["targets"]:
            names = spoken_of(target["expr"])
            assert names, target
            assert names <= SERIES


@pytest.mark.skipif(PROMTOOL is None, reason=NO_LINTER)
def test_prometheus_takes_them() -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "check", "rules", ALERTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = Metrics("1", compiled=True)
    metrics.know(["a", "b"])
    metrics.delivered("a", 3, 0.1, 0)
    metrics.read_back("a", 1.0, 1, 1)
    text, _ = metrics.text("", {"watcher_lag_seconds": {("a",): 1.0}})
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stdout + done.stderr
