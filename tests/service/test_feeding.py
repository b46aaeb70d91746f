"""The options of a subscription: applied over others, and refused with what would be right."""

from __future__ import annotations

from typing import Any

import pytest

from backend_watcher.delivery.batch import BatchLimits
from backend_watcher.delivery.retry import Patience
from backend_watcher.delivery.subscription import Options, Start
from backend_watcher.service.config_settings import FeedingSettings
from backend_watcher.service.feeding import NAMES, faults_of, fed

EVERY: dict[str, Any] = {
    "batch": 7,
    "batch_seconds": 0.5,
    "concurrency": 3,
    "timeout_seconds": 9.0,
    "max_in_flight": 11,
    "coalesce": True,
    "attempts": 4,
    "retry_seconds_max": 8.0,
    "park": False,
    "parked_max": 12,
    "start": "oldest",
    "read_back_per_second": 2.5,
    "verify_every_seconds": 3600.0,
}


def test_what_is_not_given_stays() -> None:
    options = Options(concurrency=5, coalesce=True)
    assert fed(options, {}) == options


def test_every_option_arrives() -> None:
    assert fed(Options(), EVERY) == Options(
        concurrency=3,
        batch=BatchLimits(changes=7, seconds=0.5),
        timeout_seconds=9.0,
        max_in_flight=11,
        coalesce=True,
        patience=Patience(attempts=4, seconds_max=8.0, park=False),
        parked_max=12,
        start=Start.OLDEST,
        read_back_per_second=2.5,
        verify_every_seconds=3600.0,
    )
    assert set(EVERY) == {*NAMES, "batch"}
    assert faults_of(EVERY) == []


def test_the_settings_know_the_same_options_and_defaults() -> None:
    settings = FeedingSettings().model_dump()
    assert set(settings) == {*NAMES, "batch"}
    assert fed(Options(concurrency=2), settings) == Options(concurrency=2)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"concurrency": 0}, "concurrency must be 1 or more"),
        ({"attempts": 0}, "attempts must be 1 or more"),
        ({"parked_max": 0}, "parked_max must be 1 or more"),
        ({"max_in_flight": 0}, "max_in_flight must be 1 or more"),
        ({"batch": 0}, "batch must be 1 or more"),
        ({"batch_seconds": -1}, "batch_seconds must not be below 0"),
        ({"timeout_seconds": 0}, "timeout_seconds must be above 0"),
        ({"retry_seconds_max": 0}, "retry_seconds_max must be above 0"),
        ({"read_back_per_second": -1}, "read_back_per_second must be from 0 to 100"),
        ({"read_back_per_second": 101}, "read_back_per_second must be from 0 to 100"),
        ({"verify_every_seconds": 59}, "verify_every_seconds must be 60 or more, or 0 for never"),
        ({"verify_every_seconds": -1}, "verify_every_seconds must be 60 or more, or 0 for never"),
        ({"start": "soon"}, "start is 'soon'; right would be 'now' or 'oldest'"),
        ({"retries": 3}, "retries is unknown; there are: batch_seconds"),
    ],
)
def test_what_is_wrong_is_said(given: dict[str, Any], says: str) -> None:
    (fault,) = faults_of(given)
    assert fault.startswith(says)
