"""
Every metric: name, kind, labels, what it says. Names and units follow Prometheus' conventions; pure.

Labels have few values: the names of subscriptions, and fixed words. Never a key, a position or a value of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Bounds of a histogram of times: a millisecond to five minutes."""

CHANGES = (1.0, 10.0, 100.0, 1_000.0, 10_000.0)
"""Bounds of a histogram of batches."""

SUBSCRIPTION = ("subscription",)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; `bounds` only where it is a histogram."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


METRICS = (
    Metric("watcher_build_info", "gauge", "The version, and whether it is compiled.", ("version", "compiled")),
    Metric("watcher_start_time_seconds", "gauge", "When the process began, since 1970."),
    Metric("watcher_source_streaming", "gauge", "1 while changes come from PostgreSQL."),
    Metric("watcher_captured_changes_total", "counter", "Changes that went to the journal."),
    Metric("watcher_captured_bytes_total", "counter", "Their size as PostgreSQL sent them."),
    Metric("watcher_slot_held_bytes", "gauge", "WAL that PostgreSQL keeps for the slot."),
    Metric("watcher_slot_safe_bytes", "gauge", "WAL until PostgreSQL gives the slot up; absent without a limit."),
    Metric("watcher_schema_changes_total", "counter", "Changes of watched tables' shapes.", ("kind",)),
    Metric("watcher_journal_bytes", "gauge", "Changes in the journal, as they came."),
    Metric("watcher_journal_blocks", "gauge", "Blocks in the journal."),
    Metric("watcher_journal_oldest_time_seconds", "gauge", "When its oldest change was captured, since 1970."),
    Metric("watcher_journal_full", "gauge", "1 while capture waits for room in the journal."),
    Metric("watcher_running", "gauge", "1 while a subscription delivers or waits for changes.", SUBSCRIPTION),
    Metric("watcher_lag_bytes", "gauge", "WAL between a subscription's cursor and the journal's end.", SUBSCRIPTION),
    Metric("watcher_lag_seconds", "gauge", "Age of the oldest change that is to be delivered.", SUBSCRIPTION),
    Metric("watcher_delivered_changes_total", "counter", "Changes that the sink has taken.", SUBSCRIPTION),
    Metric("watcher_batch_changes", "histogram", "Changes in a batch that the sink has taken.", SUBSCRIPTION, CHANGES),
    Metric("watcher_delivery_seconds", "histogram", "How long the sink took for a batch.", SUBSCRIPTION, SECONDS),
    Metric(
        "watcher_visible_seconds",
        "histogram",
        "From commit, by the source's clock, until the sink has taken the batch it was the newest of.",
        SUBSCRIPTION,
        SECONDS,
    ),
    Metric("watcher_failures_total", "counter", "Times that a sink failed for every change alike.", SUBSCRIPTION),
    Metric("watcher_skipped_changes_total", "counter", "Changes that a function asked to leave alone.", SUBSCRIPTION),
    Metric("watcher_held_keys", "gauge", "Keys that failed and are tried again.", SUBSCRIPTION),
    Metric("watcher_parked_keys", "gauge", "Keys that wait for a person.", SUBSCRIPTION),
    Metric(
        "watcher_read_back_total",
        "counter",
        "Delivered changes looked for in the sink so long after their commit: visible, or not.",
        ("subscription", "within_seconds", "found"),
    ),
    Metric("watcher_drift_entries", "gauge", "Entries of the sink that differ, and stay so.", SUBSCRIPTION),
)

BY_NAME = {metric.name: metric for metric in METRICS}
