"""Folding against a brute-force model: the same rows, whatever is folded together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.errors import SinkRejected
from backend_watcher.events.change import Change
from backend_watcher.events.fields import Cell, split_fields
from backend_watcher.events.row import UNCHANGED, Missing
from backend_watcher.sinks.postgres_replica_fold import Folded, NeedsRow, both, runs
from backend_watcher.testing.builders import change, table

KEYS = st.integers(1, 4)
STEP = st.tuples(st.sampled_from(["insert", "update", "large", "delete", "move", "move large"]), KEYS, KEYS)
FULL = table(replica_identity="f")

Rows = dict[bytes, list[Cell]]


def model(steps: list[tuple[str, int, int]]) -> tuple[list[Change], dict[int, tuple[str, int]]]:
    """Return changes as a source would make them of these steps, and the rows at the end; impossible ones are left."""
    rows: dict[int, tuple[str, int]] = {}
    changes = []
    for at, (step, key, other) in enumerate(steps, 1):
        if step == "insert":
            if key in rows:
                continue
            rows[key] = (f"n{at}", at)
            changes.append(change("insert", new={"id": key, "name": f"n{at}", "stock": at}, lsn=at))
        elif key not in rows:
            continue
        elif step == "delete":
            del rows[key]
            changes.append(change("delete", old={"id": key}, lsn=at))
        else:
            name = rows[key][0] if "large" in step else f"u{at}"
            sent = UNCHANGED if "large" in step else name
            to, old = (other, {"id": key}) if "move" in step else (key, None)
            if to != key and to in rows:
                continue
            del rows[key]
            rows[to] = (name, at)
            changes.append(change("update", new={"id": to, "name": sent, "stock": at}, old=old, lsn=at))
    return changes, rows


def apply(rows: Rows, folded: Folded) -> None:
    """Do to the rows what the statements do to the target."""
    whole, gone, parts = folded.steps()
    for fields in gone:
        rows.pop(split_fields(fields)[0], None)  # type: ignore[arg-type]
    for fields in whole:
        cells = split_fields(fields)
        rows[cells[0]] = cells  # type: ignore[index]
    for partial in (row for of_one_mask in parts.values() for row in of_one_mask):
        there = rows[partial[0]]  # type: ignore[index]
        rows[partial[0]] = [t if isinstance(c, Missing) else c for t, c in zip(there, partial, strict=True)]  # type: ignore[index]


@given(st.lists(STEP, max_size=25), st.sets(st.integers(0, 25)))
def test_folded_changes_end_as_the_changes_one_by_one(steps: list[tuple[str, int, int]], cuts: set[int]) -> None:
    changes, expected = model(steps)
    rows: Rows = {}
    folded = Folded()
    for number, one in enumerate(changes):
        if number in cuts:
            apply(rows, folded)
            folded = Folded()
        try:
            folded.add(one)
        except NeedsRow as wanted:
            apply(rows, folded)
            folded = Folded()
            folded.add(one, rows[split_fields(wanted.gone)[0]])  # type: ignore[index]
    apply(rows, folded)
    assert {int(k): (c[1].decode(), int(c[2])) for k, c in rows.items()} == expected  # type: ignore[union-attr, arg-type]


def test_each_key_comes_once_and_a_swap_is_two_rows() -> None:
    moves = [(1, 9, "a"), (2, 1, "b"), (9, 2, "a")]
    folded = Folded()
    for at, (old, new, name) in enumerate(moves, 1):
        folded.add(change("update", new={"id": new, "name": name, "stock": 0}, old={"id": old}, lsn=at))
    whole, gone, parts = folded.steps()
    assert sorted(split_fields(row)[:2] for row in whole) == [[b"1", b"b"], [b"2", b"a"]]  # type: ignore[type-var]
    assert [split_fields(row)[0] for row in gone] == [b"9"]
    assert not parts


def test_the_old_row_knows_what_was_not_sent() -> None:
    folded = Folded()
    old = {"id": 1, "name": "large", "stock": 1}
    folded.add(change("update", FULL, new={"id": 1, "name": UNCHANGED, "stock": 2}, old=old))
    assert split_fields(folded.steps()[0][0]) == [b"1", b"large", b"2"]


def test_a_moved_row_that_is_nowhere_is_no_null() -> None:
    moved = change("update", new={"id": 2, "name": UNCHANGED, "stock": 2}, old={"id": 1})
    with pytest.raises(NeedsRow):
        Folded().add(moved)
    with pytest.raises(SinkRejected, match="toast_unavailable"):
        Folded().add(moved, [])


def test_runs_end_at_truncates_and_other_shapes() -> None:
    other, wider = table("public.orders"), table(columns={"id": "int8", "more": "text"})
    made = [change(new={"id": 1}), change(of=other, new={"id": 1}), change(of=wider, new={"id": 2})]
    made += [change("truncate", wider), change(of=wider, new={"id": 3}), change(of=other, new={"id": 4})]
    expected = [[made[0]], [made[2]], [made[3]], [made[4]], [made[1], made[5]]]
    assert runs(made) == expected


def test_equal_rows_are_told_by_all_of_their_columns() -> None:
    shape = table(key=(), replica_identity="f")
    old = {"id": 1, "name": "large", "stock": 1}
    was, now = both(change("update", shape, new={"id": 1, "name": UNCHANGED, "stock": None}, old=old))
    assert split_fields(was) == [b"1", b"large", b"1"]
    assert now is not None
    assert split_fields(now) == [b"1", b"large", None]
    assert both(change("delete", shape, old=old))[1] is None


def test_inserts_are_taken_together_up_to_something_else() -> None:
    made = [change(new={"id": n}) for n in range(3)]
    folded = Folded()
    assert folded.extend(made) == 3
    assert folded.extend(made, 3) == 3
    assert folded.expects is False
    assert len(folded.rows) == 3
    moved = change("update", new={"id": 1, "name": "a"})
    assert folded.extend([*made, moved, made[0]], 0) == 3
    folded.add(moved)
    assert folded.expects is None
    assert Folded().extend([]) == 0
    updated = Folded()
    updated.add(moved)
    assert updated.expects is True
