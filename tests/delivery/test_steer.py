"""What people asked for, as the journal keeps it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backend_watcher.delivery.steer import (
    Pause,
    Replay,
    dump,
    key_matches,
    load_pause,
    load_replay,
    pause_note,
    replay_note,
)
from backend_watcher.events.position import Position
from backend_watcher.testing import builders

REPLAY = Replay(Position(0x1000, 2), Position(0x2000, 5))
OTHER = builders.table("public.other", relation_oid=16400)
PAIR = builders.table("public.pairs", {"a": "int8", "b": "text"}, key=("a", "b"), relation_oid=16401)


def test_a_pause_comes_back_as_it_was() -> None:
    pause = Pause(1000.5, "root", "the shop moves; 'öffnet' später")
    assert load_pause(dump(pause)) == pause
    assert load_pause(None) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"at": "soon"}', '{"by": "root"}'])
def test_a_pause_that_cannot_be_read_is_still_a_pause(text: str) -> None:
    pause = load_pause(text)
    assert pause is not None
    assert "cannot be read" in pause.reason


@pytest.mark.parametrize(
    "replay", [REPLAY, replace(REPLAY, table="public.products", key="42", by="root", at=7.5, reached=Position(9, 1))]
)
def test_a_replay_comes_back_as_it_was(replay: Replay) -> None:
    assert load_replay(dump(replay)) == replay


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "{}", '{"after": [1], "to": 2, "reached": null}', '{"after": [1, 2], "to": [3, 4]}']
)
def test_a_replay_that_cannot_be_read_is_none(text: str | None) -> None:
    assert load_replay(text) is None


def test_it_goes_on_where_it_was() -> None:
    assert REPLAY.begin == REPLAY.after
    reached = REPLAY.went_to(Position(0x1800, 0))
    assert (reached.begin, reached.after, reached.to) == (Position(0x1800, 0), REPLAY.after, REPLAY.to)


@pytest.mark.parametrize(
    ("wish", "change", "wanted"),
    [
        ({}, builders.change(new={"id": 1}, lsn=0x2000, ordinal=5), True),
        ({}, builders.change(new={"id": 1}, lsn=0x2000, ordinal=6), False),
        ({"table": "public.products"}, builders.change(new={"id": 1}), True),
        ({"table": "public.other"}, builders.change(new={"id": 1}), False),
        ({"key": "1"}, builders.change(new={"id": 1}), True),
        ({"key": "1"}, builders.change(new={"id": 2}), False),
        ({"key": "1"}, builders.change("delete", old={"id": 1}), True),
        # A row that moved away from the key, or to it.
        ({"key": "1"}, builders.change("update", new={"id": 2}, old={"id": 1}), True),
        ({"key": "2"}, builders.change("update", new={"id": 2}, old={"id": 1}), True),
        ({"key": "3"}, builders.change("update", new={"id": 2}, old={"id": 1}), False),
        ({"key": "7"}, builders.change("truncate"), True),
        ({"key": "7", "table": "public.other"}, builders.change("truncate"), False),
        ({"key": "7", "table": "public.other"}, builders.change("truncate", OTHER), True),
        ({"key": "1,x"}, builders.change(of=PAIR, new={"a": 1, "b": "x"}), True),
        ({"key": "1"}, builders.change(of=PAIR, new={"a": 1, "b": "x"}), False),
    ],
)
def test_what_is_asked_for(wish: dict[str, Any], change: Any, wanted: bool) -> None:
    assert replace(REPLAY, **wish).matches(change) is wanted


def test_a_key_is_what_a_person_types() -> None:
    assert key_matches((42,), "42")
    assert key_matches(("a", 1), "a,1")
    assert not key_matches((42,), "043")
    assert not key_matches((), "42")


def test_notes_of_different_subscriptions_do_not_meet() -> None:
    assert len({pause_note("a"), pause_note("b"), replay_note("a"), replay_note("b")}) == 4
