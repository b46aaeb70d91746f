"""Percentiles. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return the smallest value that so many percent of all values do not pass; None if there are none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def summary(values_ms: Sequence[float]) -> dict[str, float | None]:
    """Return `p50_ms`, `p95_ms` and `p99_ms`."""
    found = {f"p{percent}_ms": percentile(values_ms, percent) for percent in (50, 95, 99)}
    return {name: None if value is None else round(value, 2) for name, value in found.items()}
