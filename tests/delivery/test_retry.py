"""The table of decisions."""

from __future__ import annotations

import random

import pytest

from backend_watcher import errors
from backend_watcher.delivery.retry import (
    AFTER_SECONDS_MAX,
    DELAY_SECONDS_MIN,
    SINK_SECONDS_MAX,
    Decision,
    Patience,
    Verdict,
    blames_sink,
    decide,
    kind_of,
)
from backend_watcher.errors import RetryKind

PATIENCE = Patience(attempts=3, seconds_max=60.0)
UNAVAILABLE = errors.SinkUnavailable("no")
BROKEN = KeyError("stock")
REFUSED = errors.SinkRejected("no")


@pytest.mark.parametrize("last", [0.0, 0.1, 7.0, 60.0])
def test_a_delay_lies_between_the_shortest_and_three_times_the_last(dice: random.Random, last: float) -> None:
    high = min(PATIENCE.seconds_max, max(DELAY_SECONDS_MIN, 3 * last))
    for draw in [0.0, 1.0, *(dice.random() for _ in range(100))]:
        assert DELAY_SECONDS_MIN <= decide(BROKEN, 1, last, draw, PATIENCE).seconds <= high
    assert decide(BROKEN, 1, last, 0.0, PATIENCE).seconds == DELAY_SECONDS_MIN
    assert decide(BROKEN, 1, last, 1.0, PATIENCE).seconds == pytest.approx(high)


@pytest.mark.parametrize(("error", "longest"), [(UNAVAILABLE, SINK_SECONDS_MAX), (BROKEN, 60.0)])
def test_delays_grow_and_stay_bounded(dice: random.Random, error: Exception, longest: float) -> None:
    delay, seen = 0.0, 0.0
    for _ in range(1000):
        delay = decide(error, 1, delay, dice.random(), PATIENCE).seconds
        seen = max(seen, delay)
    assert longest / 2 < seen <= longest


@pytest.mark.parametrize(
    ("error", "attempt", "verdict"),
    [
        (UNAVAILABLE, 1, Verdict.AGAIN),
        (UNAVAILABLE, 1000, Verdict.AGAIN),
        (errors.SinkTimeout("no"), 1000, Verdict.AGAIN),
        (BROKEN, 1, Verdict.HOLD),
        (BROKEN, 2, Verdict.HOLD),
        (BROKEN, 3, Verdict.PARK),
        (errors.SinkFailed("500"), 2, Verdict.HOLD),
        (errors.HandlerError("bug"), 3, Verdict.PARK),
        (REFUSED, 1, Verdict.PARK),
        (errors.SinkGone("410"), 1, Verdict.PAUSE),
        (errors.Skip("not mine"), 1, Verdict.SKIP),
        (errors.ConfigError(["no such stream"]), 1, Verdict.STOP),
    ],
)
def test_whose_fault_it_is_decides(error: Exception, attempt: int, verdict: Verdict) -> None:
    assert decide(error, attempt, 0.0, 0.5, PATIENCE).verdict is verdict


@pytest.mark.parametrize("error", [BROKEN, REFUSED])
def test_an_outage_and_switched_off_parking_blame_nobody(error: Exception) -> None:
    for patience, outage in ((PATIENCE, True), (Patience(attempts=3, park=False), False)):
        decision = decide(error, 1000, 60.0, 1.0, patience, outage=outage)
        assert decision == Decision(Verdict.AGAIN, SINK_SECONDS_MAX)


def test_it_is_not_asked_before_it_wishes() -> None:
    assert decide(errors.SinkUnavailable("429", after_seconds=100.0), 1, 0.0, 1.0, PATIENCE).seconds == 100.0
    assert decide(errors.Retry(90.0), 1, 0.0, 1.0, PATIENCE) == Decision(Verdict.HOLD, 90.0)
    assert decide(errors.Retry(1e9), 1, 0.0, 1.0, PATIENCE).seconds == AFTER_SECONDS_MAX
    assert decide(errors.Retry(-5.0), 1, 0.0, 1.0, PATIENCE).seconds == DELAY_SECONDS_MIN
    assert decide(errors.Retry(), 3, 0.0, 1.0, PATIENCE).verdict is Verdict.PARK


def test_every_error_has_a_kind_and_an_unknown_one_is_a_users() -> None:
    assert kind_of(REFUSED) is RetryKind.PARK
    assert kind_of(UNAVAILABLE) is RetryKind.LATER
    assert kind_of(errors.ConfigError(["no"])) is RetryKind.STOP
    assert kind_of(BROKEN) is errors.HandlerError.retry is RetryKind.LATER
    assert not blames_sink(BROKEN)
    assert blames_sink(UNAVAILABLE)
    assert not blames_sink(errors.SinkError("no"))
