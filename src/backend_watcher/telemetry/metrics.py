"""
An Observer that counts, and says what it counted in Prometheus' words when it is asked.

Counting costs an addition or two per batch: what a subscription tells, its own thread tells, so nothing is locked.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from backend_watcher.contracts import HeldKey
from backend_watcher.events.position import Position
from backend_watcher.events.schema_change import SchemaChange
from backend_watcher.telemetry.names import BY_NAME, CHANGES, METRICS, SECONDS

MICROS_OF_2000 = 946_684_800_000_000
"""PostgreSQL counts from 2000, in microseconds."""

STREAMING = frozenset({"streaming", "wal_warning", "wal_alarm", "prepared_open", "queue_alarm"})
"""The states of a source in which changes come."""

RUNNING = frozenset({"running", "retrying", "replaying"})
"""The states of a subscription that is not kept from delivering."""

Labels = tuple[str, ...]
Samples = dict[str, dict[Labels, float]]
"""Values by the names of metrics and their labels."""


class Histogram:
    """How many values were up to each bound, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Return, for each bound, how many values are not above it, the last for all; and the sum."""
        counts, total = list(self._counts), 0
        found: list[tuple[str, float]] = []
        for bound, count in zip([*map(str, self._bounds), "+Inf"], counts, strict=True):
            total += count
            found.append((bound, total))
        return found, self._sum


@dataclass(slots=True)
class Subscription:
    """What one subscription told."""

    state: str = "running"
    delivered: int = 0
    failures: int = 0
    skipped: int = 0
    batches: Histogram = field(default_factory=lambda: Histogram(CHANGES))
    seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    visible: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    keys: dict[int, bool] = field(default_factory=dict)
    read_back: Counter[tuple[str, str]] = field(default_factory=Counter)
    drift: Counter[str] = field(default_factory=Counter)


class Metrics:
    """Told what happens; `text` says what it came to."""

    def __init__(self, version: str, compiled: bool, now: float | None = None) -> None:
        self._build = (version, "true" if compiled else "false")
        self._begun = time.time() if now is None else now
        self._source = "starting"
        self._changes = 0
        self._bytes = 0
        self._held: int | None = None
        self._safe: int | None = None
        self._schema: Counter[str] = Counter()
        self._subscriptions: dict[str, Subscription] = {}

    def know(self, subscriptions: Sequence[str]) -> None:
        """Say these from now on, what is not told of them too; those that are gone are said no more."""
        self._subscriptions = {name: self._subscriptions.get(name) or Subscription() for name in subscriptions}

    def _of(self, subscription: str) -> Subscription:
        return self._subscriptions.get(subscription) or Subscription()

    def captured(self, changes: int, size_bytes: int, lsn: int) -> None:
        """Count what went to the journal."""
        self._changes += changes
        self._bytes += size_bytes

    def source_state(self, state: str, detail: str) -> None:
        """Note the state."""
        self._source = state

    def slot_held(self, held_bytes: int, safe_bytes: int | None) -> None:
        """Note how much PostgreSQL keeps."""
        self._held, self._safe = held_bytes, safe_bytes

    def schema_changed(self, change: SchemaChange) -> None:
        """Count it by its kind."""
        self._schema[change.kind] += 1

    def delivered(self, subscription: str, changes: int, seconds: float, commit_micros: int) -> None:
        """Count a batch, and how old its newest change was."""
        one = self._of(subscription)
        one.delivered += changes
        one.batches.add(changes)
        one.seconds.add(seconds)
        # The source's clock may be ahead of ours.
        one.visible.add(max(0.0, time.time() - (commit_micros + MICROS_OF_2000) / 1e6))

    def failed(self, subscription: str, error: BaseException, attempt: int, retry_seconds: float | None) -> None:
        """Count it."""
        self._of(subscription).failures += 1

    def skipped(self, subscription: str, position: Position, reason: str) -> None:
        """Count it."""
        self._of(subscription).skipped += 1

    def held(self, subscription: str, key: HeldKey) -> None:
        """Remember whether the key is parked."""
        self._of(subscription).keys[key.number] = key.parked

    def released(self, subscription: str, key_number: int) -> None:
        """Forget the key."""
        self._of(subscription).keys.pop(key_number, None)

    def subscription_state(self, subscription: str, state: str, detail: str) -> None:
        """Note the state."""
        self._of(subscription).state = state

    def settled(self, subscription: str, position: Position) -> None:
        """Nothing: how far a subscription is, is asked of the journal."""

    def read_back(self, subscription: str, within_seconds: float, visible: int, missed: int) -> None:
        """Count what was looked for."""
        counts = self._of(subscription).read_back
        counts[f"{within_seconds:g}", "yes"] += visible
        counts[f"{within_seconds:g}", "no"] += missed

    def drift(self, subscription: str, table: str, kind: str, persists: bool) -> None:
        """Count entries that differ now."""
        counts = self._of(subscription).drift
        counts[table] = max(0, counts[table] + (1 if persists else -1))

    def verified(self, subscription: str, verdict: str, detail: str) -> None:
        """Nothing: `drift` tells of each entry."""

    # Saying it

    def text(self, accept: str, more: Samples) -> tuple[bytes, str]:
        """
        Return the exposition that is accepted, and its content type.

        `more` are the values of metrics that nobody tells: they are asked for when they are wanted.
        """
        encode, content_type = choose_encoder(accept)
        return encode(_Said(self, more)), content_type

    def samples(self) -> Samples:
        """Return the values of counters and gauges."""
        each = dict(self._subscriptions)
        said: Samples = {
            "watcher_build_info": {self._build: 1},
            "watcher_start_time_seconds": {(): self._begun},
            "watcher_source_streaming": {(): self._source in STREAMING},
            "watcher_captured_changes_total": {(): self._changes},
            "watcher_captured_bytes_total": {(): self._bytes},
            "watcher_slot_held_bytes": {(): self._held} if self._held is not None else {},
            "watcher_slot_safe_bytes": {(): self._safe} if self._safe is not None else {},
            "watcher_schema_changes_total": {(kind,): count for kind, count in dict(self._schema).items()},
            "watcher_running": {(name,): one.state in RUNNING for name, one in each.items()},
            "watcher_delivered_changes_total": {(name,): one.delivered for name, one in each.items()},
            "watcher_failures_total": {(name,): one.failures for name, one in each.items()},
            "watcher_skipped_changes_total": {(name,): one.skipped for name, one in each.items()},
            "watcher_held_keys": {},
            "watcher_parked_keys": {},
            "watcher_read_back_total": {},
            "watcher_drift_entries": {(name,): sum(dict(one.drift).values()) for name, one in each.items()},
        }
        for name, one in each.items():
            parked = list(one.keys.copy().values())
            said["watcher_held_keys"][name,] = parked.count(False)
            said["watcher_parked_keys"][name,] = parked.count(True)
            for (within, found), count in dict(one.read_back).items():
                said["watcher_read_back_total"][name, within, found] = count
        return said

    def histograms(self) -> Mapping[str, Mapping[Labels, Histogram]]:
        """Return the histograms by the names of metrics."""
        each = dict(self._subscriptions)
        return {
            "watcher_batch_changes": {(name,): one.batches for name, one in each.items()},
            "watcher_delivery_seconds": {(name,): one.seconds for name, one in each.items()},
            "watcher_visible_seconds": {(name,): one.visible for name, one in each.items()},
        }


class _Said:
    """What an encoder asks for its metrics."""

    def __init__(self, metrics: Metrics, more: Samples) -> None:
        self._samples = {**metrics.samples(), **more}
        self._histograms = metrics.histograms()
        assert self._samples.keys() <= BY_NAME.keys()

    def collect(self) -> Iterator[Metric]:
        """Return every metric, in the order of the table."""
        for one in METRICS:
            if one.kind == "histogram":
                family = HistogramMetricFamily(one.name, one.help, labels=one.labels)
                for labels, histogram in self._histograms[one.name].items():
                    buckets, total = histogram.buckets()
                    family.add_metric(labels, buckets, total)
                yield family
                continue
            make = CounterMetricFamily if one.kind == "counter" else GaugeMetricFamily
            values = make(one.name, one.help, labels=one.labels)
            for labels, value in self._samples.get(one.name, {}).items():
                values.add_metric(labels, float(value))
            yield values
