"""
What is done about a failed delivery: one table from error kind and attempt to a decision. Pure.

| kind   | whose fault  | decision                                                                               |
|--------|--------------|----------------------------------------------------------------------------------------|
| later  | the sink's   | the same again, without end, after a jittered delay of at most SINK_SECONDS_MAX        |
| later  | the change's | its key is held and tried again; with its attempts spent it is parked                  |
| park   | the change's | its key is parked at once                                                              |
| person | –            | the subscription pauses until a person resumes it                                      |
| skip   | –            | nothing is done about the change: it is settled                                        |
| stop   | –            | the subscription stops; the others go on                                               |

The delay is decorrelated: somewhere between the shortest and three times the last one. Where the other side said
when it wants to be asked again (Retry-After), it is not asked before. Where parking is switched off, what would be held
or parked is the same again without end. While so many keys fail that it looks like an outage, no key is blamed:
see `health.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from backend_watcher.errors import HandlerError, RetryKind, WatcherError

DELAY_SECONDS_MIN = 0.1
SINK_SECONDS_MAX = 5.0
"""A sink that is back is noticed so soon."""

AFTER_SECONDS_MAX = 3600.0
"""However long the other side asks us to wait."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a failing change is tried, how long apart at most, and whether it is parked then."""

    attempts: int = 15
    seconds_max: float = 60.0
    park: bool = True


class Verdict(Enum):
    """What becomes of the change, or of the batch."""

    AGAIN = "again"
    HOLD = "hold"
    PARK = "park"
    PAUSE = "pause"
    SKIP = "skip"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Decision:
    """`seconds` is how long to wait first, where there is another try."""

    verdict: Verdict
    seconds: float = 0.0


def kind_of(error: BaseException) -> RetryKind:
    """Return the retry kind of any error; one we do not know came out of somebody's function."""
    return error.retry if isinstance(error, WatcherError) else HandlerError.retry


def blames_sink(error: BaseException) -> bool:
    """Say whether every change would have met this error."""
    return isinstance(error, WatcherError) and error.blames_sink


_PLAIN = {RetryKind.STOP: Verdict.STOP, RetryKind.SKIP: Verdict.SKIP, RetryKind.PERSON: Verdict.PAUSE}


def decide(
    error: BaseException,
    attempt: int,
    last_seconds: float,
    draw: float,
    patience: Patience,
    *,
    outage: bool = False,
) -> Decision:
    """
    Decide about one failure.

    `attempt` counts the tries so far, this one among them; `last_seconds` is the delay before it, and `draw` a
    number from 0 to 1.
    """
    kind = kind_of(error)
    if kind in _PLAIN:
        return Decision(_PLAIN[kind])
    to_blame = not blames_sink(error) and patience.park and not outage
    if to_blame and (kind is RetryKind.PARK or attempt >= patience.attempts):
        return Decision(Verdict.PARK)
    longest = patience.seconds_max if to_blame else min(patience.seconds_max, SINK_SECONDS_MAX)
    seconds = max(_jitter(last_seconds, draw, longest), _asked_for(error))
    return Decision(Verdict.HOLD if to_blame else Verdict.AGAIN, seconds)


def _jitter(last_seconds: float, draw: float, longest: float) -> float:
    high = max(DELAY_SECONDS_MIN, 3 * last_seconds)
    return min(longest, DELAY_SECONDS_MIN + draw * (high - DELAY_SECONDS_MIN))


def _asked_for(error: BaseException) -> float:
    asked = error.after_seconds if isinstance(error, WatcherError) else None
    return min(max(asked or 0.0, 0.0), AFTER_SECONDS_MAX)
