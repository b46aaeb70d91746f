"""Heartbeats are never further apart than asked for, and go along with questions where there are any."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.capture.beat import Beat


@given(st.floats(0.1, 100), st.lists(st.floats(0.01, 200), min_size=1, max_size=50))
def test_they_are_never_further_apart_than_the_interval(interval: float, gaps: list[float]) -> None:
    """Questions come at any times; whatever they are, a timer of its own sees to the interval."""
    beat, now, beats = Beat(interval, 0.0), 0.0, [0.0]
    for gap in gaps:
        question = now + gap
        while (due := now + beat.wait_seconds(now)) <= question:
            now = due
            assert beat.wait_seconds(now) < 1e-6
            beat.sent(now)
            beats.append(now)
        now = question
        if beat.may_go_along(now):
            beat.sent(now)
            beats.append(now)
    assert all(later - earlier <= interval * 1.0001 for earlier, later in pairwise(beats))


def test_with_a_question_each_nine_seconds_it_costs_none_of_its_own() -> None:
    beat, alone = Beat(10.0, 0.0), 0
    for tenth in range(36_000):
        now = tenth / 10
        if tenth % 90 == 0 and beat.may_go_along(now):
            beat.sent(now)
        elif beat.wait_seconds(now) == 0.0:
            alone += 1
            beat.sent(now)
    assert alone == 0


def test_one_that_is_rare_is_not_hurried_by_the_first_question() -> None:
    beat = Beat(3600.0, 0.0)
    assert not beat.may_go_along(9.0)
    assert beat.wait_seconds(9.0) == 3591.0
