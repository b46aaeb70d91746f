"""Order per key, whatever runs at the same time."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from backend_watcher.delivery.lanes import spread
from backend_watcher.events.change import Change
from backend_watcher.testing import builders

TABLE = builders.table()
OTHER = builders.table("public.log", {"line": "text"}, (), relation_oid=16385)

keys = st.integers(1, 6)
operations = st.one_of(
    st.tuples(st.sampled_from(["insert", "update", "delete"]), keys),
    st.tuples(st.just("rekey"), keys, keys),
    st.tuples(st.just("truncate")),
    st.tuples(st.just("log"), keys),
)


def make(number: int, operation: tuple) -> Change:  # type: ignore[type-arg]
    kind, *ids = operation
    if kind == "truncate":
        return builders.change("truncate", TABLE, ordinal=number)
    if kind == "log":
        return builders.change("insert", OTHER, new={"line": ids[0]}, ordinal=number)
    if kind == "delete":
        return builders.change("delete", TABLE, old={"id": ids[0]}, ordinal=number)
    old = {"id": ids[0]} if kind == "rekey" else None
    return builders.change(
        "insert" if kind == "insert" else "update", TABLE, new={"id": ids[-1]}, old=old, ordinal=number
    )


def concerns(operation: tuple) -> set[object]:  # type: ignore[type-arg]
    """The rows an operation is about; a table without a key is one row, a truncate is about all."""
    kind, *ids = operation
    if kind == "truncate":
        return {"log", *range(1, 7)}
    return {"log"} if kind == "log" else set(ids)


def barrier(operation: tuple) -> bool:  # type: ignore[type-arg]
    return operation[0] == "truncate" or (operation[0] == "rekey" and operation[1] != operation[2])


@settings(max_examples=500, deadline=None, print_blob=True)
@given(st.lists(operations, max_size=30), st.integers(1, 8))
def test_each_change_once_and_those_of_a_key_in_order(wished: list[tuple], lanes: int) -> None:  # type: ignore[type-arg]
    steps = spread([make(number, operation) for number, operation in enumerate(wished)], lanes)
    place = {}
    for number, step in enumerate(steps):
        assert len(step) in {1, lanes}
        for lane, run in enumerate(step):
            for index, change in enumerate(run):
                assert change.ordinal not in place
                place[change.ordinal] = (number, lane, index)
    assert sorted(place) == list(range(len(wished)))
    for later, operation in enumerate(wished):
        for earlier in range(later):
            if concerns(operation) & concerns(wished[earlier]):
                assert in_order(place[earlier], place[later]), (wished, earlier, later)


def in_order(first: tuple[int, int, int], second: tuple[int, int, int]) -> bool:
    """Runs of one step may be delivered at the same time; only within a run is there an order."""
    return first[0] < second[0] or (first[:2] == second[:2] and first[2] < second[2])


@settings(max_examples=200, deadline=None, print_blob=True)
@given(st.lists(operations, max_size=20), st.integers(2, 8))
def test_what_concerns_several_keys_stands_alone(wished: list[tuple], lanes: int) -> None:  # type: ignore[type-arg]
    steps = spread([make(number, operation) for number, operation in enumerate(wished)], lanes)
    alone = [run[0].ordinal for step in steps if len(step) == 1 for run in step]
    assert alone == [number for number, operation in enumerate(wished) if barrier(operation)]
    assert all(len(step[0]) == 1 for step in steps if len(step) == 1)


def test_one_lane_is_the_order_of_commits() -> None:
    changes: Sequence[Change] = [make(0, ("insert", 1)), make(1, ("truncate",)), make(2, ("rekey", 1, 2))]
    assert spread(changes, 1) == [[changes]]


def test_several_keys_use_several_lanes() -> None:
    [runs] = spread([make(number, ("insert", number)) for number in range(100)], 4)
    assert all(runs)
