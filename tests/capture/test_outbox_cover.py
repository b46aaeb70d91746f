"""Whether triggers covered the tables all the time: each way in which they may not have."""

from __future__ import annotations

import pytest

from backend_watcher.capture.outbox_cover import Covered, from_note, gaps, to_note

WANTED = {"public.a": ("row", "truncate")}
WHOLE = Covered(1, {"row": (10, "A"), "truncate": (11, "A")})


def line(before: Covered | None, now: Covered | None) -> str:
    was = {"public.a": before} if before else {}
    found = gaps(was, {"public.a": now} if now else {}, WANTED)
    assert len(found) <= 1
    return found[0] if found else ""


def test_what_is_whole_and_stays_so_has_no_gap() -> None:
    assert line(None, WHOLE) == ""
    assert line(WHOLE, WHOLE) == ""


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (Covered(1, {}), "lost its trigger"),
        (Covered(1, {"row": (10, "A")}), "lost its trigger"),
        (Covered(1, {"row": (10, "D"), "truncate": (11, "A")}), "disabled"),
        (Covered(1, {"row": (10, "O"), "truncate": (11, "A")}), "always"),
        (Covered(1, {"row": (12, "A"), "truncate": (11, "A")}), "made again"),
        (Covered(2, {}), "no trigger"),
    ],
)
def test_each_gap_is_named(now: Covered, words: str) -> None:
    assert words in line(WHOLE, now)


def test_a_dropped_table_stops_nobody_and_one_made_again_with_triggers_goes_on() -> None:
    assert line(WHOLE, None) == ""
    assert line(WHOLE, Covered(2, {"row": (20, "A"), "truncate": (21, "A")})) == ""


def test_tables_that_nobody_wants_do_not_count() -> None:
    assert gaps({"public.b": WHOLE}, {"public.b": Covered(1, {})}, WANTED) == []


def test_a_note_is_read_back_and_one_of_another_time_is_none() -> None:
    assert from_note(to_note({"public.a": WHOLE})) == {"public.a": WHOLE}
    for note in (None, "", "x", "[]", '{"a": 1}', '{"a": [1]}', '{"a": ["x", {}]}', '{"a": [1, {"t": []}]}'):
        assert from_note(note) == {}
