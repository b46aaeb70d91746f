"""What one look says of an entry. That it is never wrong is shown by `test_verify_model.py`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.reconcile.plan import (
    LOOK_SECONDS_MAX,
    LOOKS_MAX,
    Suspect,
    Touched,
    Verdict,
    judge,
    riddles,
    seconds_before,
)

SUSPECT = Suspect(b"product:7", {("7",)}, {b"7"})
STILL = Touched()
BY_NAME = Touched({b"product:7": {("7",)}})
BY_ROW = Touched({}, {b"7"})
OTHER = Touched({b"product:8": {("8",)}}, {b"8"})
ALL = Touched(everything=True)


@pytest.mark.parametrize(
    ("differs", "touched", "held", "verdict"),
    [
        (False, STILL, STILL, Verdict.EQUAL),
        (False, ALL, BY_ROW, Verdict.EQUAL),
        (True, STILL, STILL, Verdict.DRIFT),
        (True, OTHER, OTHER, Verdict.DRIFT),
        (True, BY_NAME, STILL, Verdict.MOVING),
        (True, BY_ROW, STILL, Verdict.MOVING),
        (True, ALL, BY_ROW, Verdict.MOVING),
        (True, OTHER, BY_ROW, Verdict.HELD),
        (True, OTHER, BY_NAME, Verdict.HELD),
    ],
)
def test_verdicts(differs: bool, touched: Touched, held: Touched, verdict: Verdict) -> None:
    assert judge(SUSPECT, differs, touched, held) is verdict


def test_looks_come_later_and_later_and_within_a_limit() -> None:
    waits = [seconds_before(look) for look in range(LOOKS_MAX)]
    assert waits[0] == 0
    assert waits == sorted(waits)
    assert max(waits) <= LOOK_SECONDS_MAX


@given(*[st.frozensets(st.integers(1, 9))] * 3)
def test_a_riddle_ran_before_and_is_neither_seen_nor_sure(
    before: frozenset[int], settled: frozenset[int], unseen: frozenset[int]
) -> None:
    # What is beyond the newest that is over is not listed, and not seen.
    found = riddles(before, settled, f"1:8:{','.join(str(xid) for xid in unseen if xid < 8)}")
    assert found == {xid for xid in before - settled if xid in unseen or xid >= 8}
