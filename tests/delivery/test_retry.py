"""The table of decisions."""

from __future__ import annotations

import random

import pytest

from backend_watcher import errors
from backend_watcher.delivery.retry import DELAY_SECONDS_MAX, DELAY_SECONDS_MIN, decide, kind_of
from backend_watcher.errors import RetryKind


@pytest.mark.parametrize("last", [0.0, 0.1, 7.0, 30.0])
def test_later_lies_between_the_shortest_delay_and_three_times_the_last(dice: random.Random, last: float) -> None:
    high = min(DELAY_SECONDS_MAX, max(DELAY_SECONDS_MIN, 3 * last))
    for draw in [0.0, 1.0, *(dice.random() for _ in range(100))]:
        seconds = decide(RetryKind.LATER, last, draw).seconds
        assert seconds is not None
        assert DELAY_SECONDS_MIN <= seconds <= high
    assert decide(RetryKind.LATER, last, 0.0).seconds == DELAY_SECONDS_MIN
    assert decide(RetryKind.LATER, last, 1.0).seconds == pytest.approx(high)


def test_later_grows_and_stays_bounded(dice: random.Random) -> None:
    delay, longest = 0.0, 0.0
    for _ in range(1000):
        delay = decide(RetryKind.LATER, delay, dice.random()).seconds or 0.0
        longest = max(longest, delay)
    assert longest > DELAY_SECONDS_MAX / 2
    assert longest <= DELAY_SECONDS_MAX


@pytest.mark.parametrize("kind", [RetryKind.PARK, RetryKind.PERSON])
def test_what_time_does_not_mend_waits_longest(kind: RetryKind) -> None:
    assert {decide(kind, last, draw).seconds for last in (0.0, 5.0) for draw in (0.0, 1.0)} == {DELAY_SECONDS_MAX}


def test_stop_stops() -> None:
    assert decide(RetryKind.STOP, 0.0, 0.5).seconds is None


def test_every_error_has_a_kind_and_an_unknown_one_is_a_users() -> None:
    assert kind_of(errors.SinkRejected("no")) is RetryKind.PARK
    assert kind_of(errors.SinkUnavailable("no")) is RetryKind.LATER
    assert kind_of(errors.ConfigError(["no"])) is RetryKind.STOP
    assert kind_of(KeyError("stock")) is errors.HandlerError.retry is RetryKind.LATER
