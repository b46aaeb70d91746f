"""
Whether the watcher does its work: looks at the flow of changes, not at the process. Pure.

A process that answers is alive. It is ready when changes come from PostgreSQL and every subscription delivers, or has
nothing to deliver; one that a person paused is as that person wants it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backend_watcher.telemetry.metrics import RUNNING, STREAMING

PAUSED_BY_PERSON = "paused"


@dataclass(frozen=True, slots=True)
class Readiness:
    """Why it is not ready, a line each; none where it is."""

    reasons: tuple[str, ...]

    @property
    def is_ready(self) -> bool:
        """Whether nothing is wrong."""
        return not self.reasons


def readiness(source: str, subscriptions: Mapping[str, str]) -> Readiness:
    """Judge by the state of the source and those of the subscriptions; texts of errors are not for everybody."""
    reasons = [] if source in STREAMING else [f"source: {source}"]
    reasons += [
        f"subscription {name}: {state}"
        for name, state in sorted(subscriptions.items())
        if state not in RUNNING | {PAUSED_BY_PERSON} or state == "retrying"
    ]
    return Readiness(tuple(reasons))
