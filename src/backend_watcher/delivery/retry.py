"""
What is done about a failed delivery: one table from error kind and attempt to a decision. Pure.

| kind   | decision |
|--------|----------|
| later  | again, after a decorrelated jitter between the shortest delay and three times the last one |
| park   | again, after the longest delay: the lane waits, and `status` says why |
| person | the same |
| stop   | the subscription stops; the others go on |
"""

from __future__ import annotations

from dataclasses import dataclass

from backend_watcher.errors import HandlerError, RetryKind, WatcherError

DELAY_SECONDS_MIN = 0.1
DELAY_SECONDS_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Decision:
    """Deliver again after `seconds`, or, with None, stop the subscription."""

    seconds: float | None


def kind_of(error: BaseException) -> RetryKind:
    """Return the retry kind of any error; one we do not know came out of somebody's function."""
    return error.retry if isinstance(error, WatcherError) else HandlerError.retry


def decide(kind: RetryKind, last_seconds: float, draw: float) -> Decision:
    """Decide about one failure: `last_seconds` is the delay before this attempt, `draw` a number from 0 to 1."""
    if kind is RetryKind.STOP:
        return Decision(None)
    if kind is not RetryKind.LATER:
        return Decision(DELAY_SECONDS_MAX)
    high = max(DELAY_SECONDS_MIN, 3 * last_seconds)
    return Decision(min(DELAY_SECONDS_MAX, DELAY_SECONDS_MIN + draw * (high - DELAY_SECONDS_MIN)))
