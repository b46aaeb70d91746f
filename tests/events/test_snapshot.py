"""What a snapshot sees, and transaction ids with and without their upper half."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.events.snapshot import Snapshot, widen


def test_a_snapshot_is_read_from_its_text() -> None:
    snapshot = Snapshot.parse("10:20:12,15")
    assert [xid for xid in range(8, 22) if snapshot.sees(xid)] == [8, 9, 10, 11, 13, 14, 16, 17, 18, 19]
    assert Snapshot.parse("7:7:") == Snapshot(7, 7, frozenset())


@pytest.mark.parametrize("text", ["", "1:2", "a:b:c", "1:2:x"])
def test_what_is_no_snapshot_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Snapshot.parse(text)


@given(st.integers(3, 1 << 40), st.integers(-(1 << 31) + 1, (1 << 31) - 1))
def test_the_stream_carries_the_lower_half_of_a_transaction_id(near: int, distance: int) -> None:
    xid = max(3, near + distance)
    assert widen(xid & 0xFFFFFFFF, near) == xid
