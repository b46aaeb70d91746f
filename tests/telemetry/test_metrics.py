"""What was told comes out as Prometheus reads it."""

from __future__ import annotations

import random
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from backend_watcher.contracts import HeldKey
from backend_watcher.events.position import Position
from backend_watcher.telemetry.metrics import MICROS_OF_2000, Histogram, Metrics, Samples
from backend_watcher.telemetry.names import METRICS, SECONDS


def read(metrics: Metrics, more: Samples | None = None) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text, content_type = metrics.text("", more or {})
    assert content_type.startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def of(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def key(number: int, *, parked: bool) -> HeldKey:
    return HeldKey(number, "public.t", "{}", {}, 1, 1.0, 2.0, None if parked else 3.0, "E", "Mend it.")


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics("1.2.3", compiled=True, now=5.0)
    metrics.know(["cache", "mail"])
    return metrics


def test_before_anything_is_told_there_are_noughts(metrics: Metrics) -> None:
    found = read(metrics)
    assert found[of("watcher_build_info", version="1.2.3", compiled="true")] == 1
    assert found[of("watcher_start_time_seconds")] == 5
    assert found[of("watcher_source_streaming")] == 0
    assert found[of("watcher_delivered_changes_total", subscription="mail")] == 0
    assert found[of("watcher_delivery_seconds_count", subscription="mail")] == 0
    assert of("watcher_slot_held_bytes") not in found


def test_what_is_told_is_counted(metrics: Metrics) -> None:
    metrics.captured(3, 300, 7)
    metrics.captured(2, 100, 8)
    metrics.source_state("streaming", "")
    metrics.slot_held(4096, None)
    committed = time.time() - 2.0
    metrics.delivered("cache", 5, 0.02, int(committed * 1e6) - MICROS_OF_2000)
    metrics.failed("cache", ValueError("secret"), 1, 0.5)
    metrics.skipped("cache", Position(1, 0), "secret")
    for number, parked in ((1, False), (2, True), (3, True), (1, True)):
        metrics.held("cache", key(number, parked=parked))
    metrics.released("cache", 3)
    metrics.held("cache", key(9, parked=False))
    metrics.subscription_state("mail", "paused", "secret")
    metrics.read_back("cache", 1.0, 9, 1)
    metrics.drift("cache", "public.t", "missing", persists=True)
    found = read(metrics)
    assert found[of("watcher_captured_changes_total")] == 5
    assert found[of("watcher_captured_bytes_total")] == 400
    assert found[of("watcher_source_streaming")] == 1
    assert found[of("watcher_slot_held_bytes")] == 4096
    assert of("watcher_slot_safe_bytes") not in found
    assert found[of("watcher_delivered_changes_total", subscription="cache")] == 5
    assert found[of("watcher_delivery_seconds_bucket", subscription="cache", le="0.01")] == 0
    assert found[of("watcher_delivery_seconds_bucket", subscription="cache", le="0.025")] == 1
    assert found[of("watcher_visible_seconds_bucket", subscription="cache", le="1.0")] == 0
    assert found[of("watcher_visible_seconds_bucket", subscription="cache", le="5.0")] == 1
    assert found[of("watcher_failures_total", subscription="cache")] == 1
    assert found[of("watcher_skipped_changes_total", subscription="cache")] == 1
    assert found[of("watcher_held_keys", subscription="cache")] == 1
    assert found[of("watcher_parked_keys", subscription="cache")] == 2
    assert found[of("watcher_running", subscription="cache")] == 1
    assert found[of("watcher_running", subscription="mail")] == 0
    assert found[of("watcher_read_back_total", subscription="cache", within_seconds="1", found="yes")] == 9
    assert found[of("watcher_drift_entries", subscription="cache")] == 1
    metrics.drift("cache", "public.t", "missing", persists=False)
    assert read(metrics)[of("watcher_drift_entries", subscription="cache")] == 0
    assert b"secret" not in metrics.text("", {})[0]


def test_what_is_asked_for_stands_beside_it(metrics: Metrics) -> None:
    found = read(metrics, {"watcher_lag_seconds": {("cache",): 2.5}, "watcher_journal_full": {(): True}})
    assert found[of("watcher_lag_seconds", subscription="cache")] == 2.5
    assert found[of("watcher_journal_full")] == 1


def test_every_metric_of_the_table_is_said(metrics: Metrics) -> None:
    text = metrics.text("", {})[0].decode()
    for metric in METRICS:
        assert f"# TYPE {metric.name} {metric.kind}\n" in text
        assert f"# HELP {metric.name} {metric.help}\n" in text


def test_who_asks_for_openmetrics_gets_it(metrics: Metrics) -> None:
    text, content_type = metrics.text("application/openmetrics-text; version=1.0.0", {})
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


def test_a_subscription_that_is_gone_is_said_no_more(metrics: Metrics) -> None:
    metrics.delivered("cache", 5, 0.02, 0)
    metrics.know(["cache"])
    metrics.delivered("mail", 5, 0.02, 0)
    found = read(metrics)
    assert found[of("watcher_delivered_changes_total", subscription="cache")] == 5
    assert of("watcher_delivered_changes_total", subscription="mail") not in found


def test_a_histogram_counts_as_counting_one_by_one_does() -> None:
    rolls = random.Random(7)
    histogram, values = Histogram(SECONDS), [rolls.choice([*SECONDS, rolls.expovariate(1.0), 1e6]) for _ in range(500)]
    for value in values:
        histogram.add(value)
    buckets, total = histogram.buckets()
    assert total == pytest.approx(sum(values))
    assert buckets[-1] == ("+Inf", 500)
    for bound, count in buckets[:-1]:
        assert count == sum(value <= float(bound) for value in values)
