"""A subscription that stands still is told from one that has nothing to do, waits on purpose, or is slow."""

from __future__ import annotations

from dataclasses import replace

from backend_watcher.events.position import START, Position
from backend_watcher.service.stall import STALLED_SECONDS, STUCK_SECONDS, Look, StallWatch

HERE, AHEAD = Position(0x1000, 0), Position(0x3000, 0)
BEHIND = Look(now=0.0, cursor=HERE, last=AHEAD, waits_on_purpose=False, patience_seconds=0.0, answered_at=0.0)


def at(seconds: float, look: Look = BEHIND) -> Look:
    """The same some seconds later; its loop answers."""
    return replace(look, now=seconds, answered_at=seconds)


def test_behind_and_not_moving_is_told_once_and_taken_back_once() -> None:
    watch = StallWatch()
    assert watch.look("a", at(0)) is None
    assert watch.look("a", at(STALLED_SECONDS - 1)) is None
    told = watch.look("a", at(STALLED_SECONDS))
    assert told == ("stalled", f"nothing was delivered for {STALLED_SECONDS:.0f} s, 8192 bytes of WAL behind")
    assert watch.look("a", at(STALLED_SECONDS + 50)) is None
    assert watch.look("a", at(200, replace(BEHIND, cursor=Position(0x2000, 0)))) == ("running", "")
    assert watch.look("a", at(201, replace(BEHIND, cursor=Position(0x2000, 0)))) is None


def test_from_the_very_beginning_no_distance_is_told() -> None:
    watch, look = StallWatch(), replace(BEHIND, cursor=START)
    watch.look("a", at(0, look))
    assert watch.look("a", at(STALLED_SECONDS, look)) == (
        "stalled",
        f"nothing was delivered for {STALLED_SECONDS:.0f} s",
    )


def test_slow_is_not_still() -> None:
    watch = StallWatch()
    for minute in range(10):
        cursor = Position(0x1000 + minute, 0)
        assert watch.look("a", at(minute * (STALLED_SECONDS - 1), replace(BEHIND, cursor=cursor))) is None


def test_nothing_to_do_and_waiting_on_purpose_are_no_stall() -> None:
    watch = StallWatch()
    for look in (replace(BEHIND, cursor=AHEAD), replace(BEHIND, waits_on_purpose=True)):
        for seconds in range(0, 200, 10):
            assert watch.look("a", at(seconds, look)) is None


def test_after_a_pause_it_has_its_time_again() -> None:
    watch = StallWatch()
    watch.look("a", at(0, replace(BEHIND, waits_on_purpose=True)))
    watch.look("a", at(500, replace(BEHIND, waits_on_purpose=True)))
    assert watch.look("a", at(500 + STALLED_SECONDS - 1)) is None


def test_a_batch_may_wait_for_company() -> None:
    watch = StallWatch()
    patient = replace(BEHIND, patience_seconds=60.0)
    watch.look("a", at(0, patient))
    assert watch.look("a", at(STALLED_SECONDS + 59, patient)) is None
    told = watch.look("a", at(STALLED_SECONDS + 60, patient))
    assert told is not None
    assert told[0] == "stalled"


def test_a_loop_that_does_not_turn_is_stuck() -> None:
    watch = StallWatch()
    silent = replace(BEHIND, cursor=AHEAD, answered_at=100.0)
    assert watch.look("a", replace(silent, now=100 + STUCK_SECONDS - 1)) is None
    told = watch.look("a", replace(silent, now=100 + STUCK_SECONDS))
    assert told is not None
    assert (told[0], "has not turned for 10 s" in told[1]) == ("stuck", True)
    assert watch.look("a", at(120, replace(BEHIND, cursor=AHEAD))) == ("running", "")


def test_each_has_its_own_time_and_may_be_forgotten() -> None:
    watch = StallWatch()
    watch.look("a", at(0))
    watch.look("b", at(20))
    assert watch.look("b", at(STALLED_SECONDS)) is None
    assert watch.look("a", at(STALLED_SECONDS)) is not None
    watch.forget("a")
    assert watch.look("a", at(STALLED_SECONDS + 1)) is None
