"""What is left of a batch leaves a sink in the same state as all of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from backend_watcher.delivery.coalesce import coalesce
from backend_watcher.events.change import DELETE, TRUNCATE, Change
from backend_watcher.events.row import UNCHANGED
from backend_watcher.testing import builders

SCHEDULES = 2000
TABLE = builders.table(columns={"id": "int8", "name": "text", "stock": "int4"})
LOG = builders.table("public.log", {"text": "text"}, key=(), replica_identity="n", relation_oid=16400)

State = dict[int, dict[str, Any]]


def apply(state: State, changes: Sequence[Change]) -> State:
    """What a sink that updates columns holds after the changes."""
    state = {key: dict(row) for key, row in state.items()}
    for change in changes:
        if change.code == TRUNCATE:
            state.clear()
        elif change.code == DELETE:
            state.pop(change.key[0], None)
        else:
            before = change.key_before or change.key
            row = state.pop(before[0], {})
            assert change.new is not None
            state[change.key[0]] = row | {n: change.new[n] for n in change.new if change.new.raw(n) is not UNCHANGED}
    return state


def history(dice: random.Random) -> tuple[State, list[Change]]:
    """A state, and what may happen to it: rows are changed and deleted only while they are there."""
    state: State = {key: {"id": key, "name": f"old{key}", "stock": 0} for key in range(4) if dice.random() < 0.5}
    there, changes = set(state), list[Change]()
    for ordinal in range(dice.randint(1, 14)):
        kind = dice.choice(["insert", "update", "update", "update", "delete", "rekey", "truncate"])
        key, to = dice.randrange(4), dice.randrange(4)
        new = {"id": key, "name": dice.choice([UNCHANGED, f"n{ordinal}"]), "stock": dice.choice([UNCHANGED, ordinal])}
        full: dict[str, Any] = {"id": key, "name": f"n{ordinal}", "stock": ordinal}
        if kind == "truncate" and dice.random() < 0.3:
            changes.append(builders.change("truncate", TABLE, ordinal=ordinal))
            there.clear()
        elif kind == "insert" and key not in there:
            changes.append(builders.change("insert", TABLE, new=full, ordinal=ordinal))
            there.add(key)
        elif kind == "update" and key in there:
            changes.append(builders.change("update", TABLE, new=new, ordinal=ordinal))
        elif kind == "delete" and key in there:
            changes.append(builders.change("delete", TABLE, old={"id": key}, ordinal=ordinal))
            there.discard(key)
        elif kind == "rekey" and key in there and to not in there:
            changes.append(builders.change("update", TABLE, new=new | {"id": to}, old={"id": key}, ordinal=ordinal))
            there = there - {key} | {to}
    return state, changes


def test_the_state_is_the_same_and_every_change_is_stood_for_once(dice: random.Random) -> None:
    shorter = 0
    for _ in range(SCHEDULES):
        state, changes = history(dice)
        left, stands_for = coalesce(changes)
        assert apply(state, left) == apply(state, changes)
        assert sorted(place for places in stands_for for place in places) == list(range(len(changes)))
        newest = [places[-1] for places in stands_for]
        assert newest == sorted(newest)
        for change, places in zip(left, stands_for, strict=True):
            assert places == sorted(places)
            assert change.position == changes[places[-1]].position
            assert {changes[place].identities() for place in places} == {change.identities()}
        shorter += len(left) < len(changes)
    assert shorter > SCHEDULES / 4


def test_a_key_has_one_change_in_a_batch_without_barriers() -> None:
    changes = [builders.change(new={"id": n % 3, "stock": n}, ordinal=n) for n in range(30)]
    left, stands_for = coalesce(changes)
    assert [change.row["stock"] for change in left] == [27, 28, 29]
    assert [len(places) for places in stands_for] == [10, 10, 10]


def test_what_only_an_older_change_says_is_filled_in() -> None:
    rows = [{"id": 1, "name": "long", "stock": 1}, {"id": 1, "name": UNCHANGED, "stock": 2}]
    changes = [builders.change("update", TABLE, new=row, ordinal=n) for n, row in enumerate([*rows, rows[1]])]
    (one,), _ = coalesce(changes)
    assert one.new is not None
    assert one.new.to_dict() == {"id": 1, "name": "long", "stock": 2}
    # The journal shares its changes with other readers.
    assert changes[2].row.raw("name") is UNCHANGED


def test_what_is_replayed_does_not_stand_for_what_is_newer() -> None:
    live = builders.change(new={"id": 1, "stock": 9}, ordinal=9)
    again = [builders.change(new={"id": 1, "stock": n}, ordinal=n).as_replayed() for n in (3, 4)]
    left, stands_for = coalesce([live, *again])
    assert [change.row["stock"] for change in left] == [9, 4]
    assert stands_for == [[0], [1, 2]]


def test_rows_without_a_key_have_nothing_in_common() -> None:
    changes = [builders.change(of=LOG, new={"text": "same"}, ordinal=n) for n in range(3)]
    assert coalesce(changes) == (changes, [[0], [1], [2]])


def test_equal_keys_of_two_tables_are_different_rows() -> None:
    other = builders.table("public.other", relation_oid=16400)
    changes = [builders.change(of=of, new={"id": 1}, ordinal=n) for n, of in enumerate([TABLE, other])]
    assert coalesce(changes)[1] == [[0], [1]]
