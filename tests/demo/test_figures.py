"""Percentiles by nearest rank."""

from __future__ import annotations

from backend_watcher.demo.figures import percentile, summary


def test_percentile_is_a_value_that_was_there() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([3.0], 99) == 3.0


def test_of_nothing_there_is_no_percentile() -> None:
    assert percentile([], 50) is None
    assert summary([]) == {"p50_ms": None, "p95_ms": None, "p99_ms": None}


def test_summary_names_three() -> None:
    assert summary([1.0, 2.0, 3.0]) == {"p50_ms": 2.0, "p95_ms": 3.0, "p99_ms": 3.0}
