"""Shares over a window that moves, against counting by hand."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from backend_watcher.reconcile.sampling import LOOKS_SECONDS, Seen
from backend_watcher.reconcile.share import SLICE_SECONDS, WINDOW_SECONDS, Shares, Visible, Within, dump, load

looks = st.tuples(st.integers(0, len(LOOKS_SECONDS) - 1), st.sampled_from(list(Seen)), st.floats(0, 100))


@settings(max_examples=200, deadline=None)
@given(st.lists(looks, max_size=100), st.floats(0, 2000))
def test_what_is_counted_is_what_was_seen_lately(told: list[tuple[int, Seen, float]], rest: float) -> None:
    shares, now, all_of_them = Shares(), 12_345.0, []
    for look, seen, pause in told:
        now += pause
        shares.add(look, seen, now)
        all_of_them.append((look, seen, now))
    now += rest
    for number, within in enumerate(shares.within(now)):
        for seen, counted in (
            (Seen.VISIBLE, within.visible),
            (Seen.MISSED, within.missed),
            (Seen.UNKNOWN, within.unknown),
        ):
            ages = [now - at for look, what, at in all_of_them if (look, what) == (number, seen)]
            # To a slice of the window.
            assert sum(age <= WINDOW_SECONDS - SLICE_SECONDS for age in ages) <= counted
            assert counted <= sum(age <= WINDOW_SECONDS for age in ages)


def test_a_share_is_of_what_is_known() -> None:
    assert Within(1.0, visible=3, missed=1, unknown=90).share == 0.75
    assert Within(1.0, unknown=5).share is None


def test_it_takes_no_more_room_however_many_come() -> None:
    shares = Shares()
    for second in range(20_000):
        shares.add(0, Seen.VISIBLE, float(second))
    assert len(shares._slices) <= WINDOW_SECONDS / SLICE_SECONDS + 1


def test_a_note_is_read_as_it_was_written() -> None:
    visible = Visible(600.0, [Within(1.0, 3, 1, 0), Within(5.0)])
    assert load(dump(visible)) == visible
    assert visible.as_plain()["within"][0] == {"seconds": 1.0, "visible": 3, "missed": 1, "unknown": 0, "share": 0.75}
    assert (load(None), load("not JSON"), load('{"within": 3}')) == (None, None, None)
