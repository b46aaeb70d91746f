"""Which changes a subscription wants."""

from __future__ import annotations

from typing import Any

import pytest

from backend_watcher.delivery.route import Route, Rule, is_repair, was_made_here, was_read_for
from backend_watcher.events.change import Change, Operation
from backend_watcher.events.row import UNCHANGED
from backend_watcher.testing import builders

NAME = "public.products"
DEFAULT = builders.table()
FULL = builders.table(replica_identity="f")
OTHER = builders.table("public.other", relation_oid=16400)
ROW = {"id": 1, "name": "pen", "stock": 5}


def update(new: dict[str, Any], old: dict[str, Any] | None = None, of: Any = FULL) -> Change:
    return builders.change("update", of, new=ROW | new, old=old)


@pytest.mark.parametrize("operation", list(Operation))
def test_operations(operation: Operation) -> None:
    rule = Rule(NAME, operations=frozenset({operation}))
    wanted = {other for other in Operation if rule.wants(builders.change(other.value, new=ROW))}
    assert wanted == {operation}
    assert not rule.takes_all
    assert Rule(NAME).takes_all
    assert Rule(NAME).wants(builders.change(operation.value, new=ROW))


@pytest.mark.parametrize(
    ("new", "old", "wanted"),
    [
        ({"stock": 4}, ROW, True),
        ({"name": "pencil"}, ROW, False),
        ({"name": "pencil", "stock": 4}, ROW, True),
        ({}, ROW, False),
        ({"stock": None}, ROW, True),
        ({"stock": 4}, ROW | {"stock": None}, True),
        ({"stock": None}, ROW | {"stock": None}, False),
        # TOAST that was not sent again did not change, whatever the old row says.
        ({"stock": UNCHANGED}, ROW, False),
    ],
)
def test_columns_with_replica_identity_full(new: dict[str, Any], old: dict[str, Any], wanted: bool) -> None:
    assert Rule(NAME, columns=frozenset({"stock"})).wants(update(new, old)) is wanted


def test_one_of_several_columns_is_enough() -> None:
    rule = Rule(NAME, columns=frozenset({"stock", "name"}))
    assert rule.wants(update({"stock": 4}, ROW))
    assert rule.wants(update({"name": "pencil"}, ROW))
    assert not rule.wants(update({}, ROW))


@pytest.mark.parametrize("old", [None, {"id": 7}])
def test_without_the_old_row_an_update_is_wanted_rather_than_missed(old: dict[str, Any] | None) -> None:
    assert Rule(NAME, columns=frozenset({"stock"})).wants(update({"name": "pencil"}, old, DEFAULT))


@pytest.mark.parametrize("operation", ["insert", "delete", "truncate", "read"])
def test_columns_limit_only_updates(operation: str) -> None:
    one = builders.change(operation, FULL, old=ROW) if operation == "delete" else builders.change(operation, new=ROW)
    assert Rule(NAME, columns=frozenset({"stock"})).wants(one)


def test_the_predicate_is_left_to_delivery() -> None:
    asked: list[int] = []

    def low(change: Change) -> bool:
        asked.append(change.row["stock"])
        return bool(change.row["stock"] < 3)

    rule = Rule(NAME, operations=frozenset({Operation.UPDATE}), columns=frozenset({"stock"}), predicate=low)
    route = Route({NAME: rule})
    many, few, same = update({"stock": 4}, ROW), update({"stock": 2}, ROW), update({"name": "pencil"}, ROW)
    assert route.select([many, few, same, builders.change("insert", new=ROW)], frozenset({NAME})) == [many, few]
    assert asked == []
    assert [route.agrees(many), route.agrees(few)] == [False, True]
    assert asked == [4, 2]
    assert route.has_predicates
    assert Rule(NAME, predicate=low).takes_all


def test_without_a_predicate_everything_agrees() -> None:
    route = Route({NAME: Rule(NAME)})
    assert not route.has_predicates
    assert route.agrees(update({}))
    # Kept since before the program was changed: the subscription has no rule for its table any more.
    assert route.agrees(builders.change("insert", OTHER, new=ROW))


def test_what_a_predicate_returns_is_taken_as_truth() -> None:
    yes, no = (Route({NAME: Rule(NAME, predicate=lambda _, made=made: made)}) for made in ([1], None))  # type: ignore[misc]
    assert yes.agrees(update({})) is True
    assert no.agrees(update({})) is False


def test_what_a_predicate_raises_is_passed_on() -> None:
    route = Route({NAME: Rule(NAME, predicate=lambda change: change.row["colour"] == "red")})
    with pytest.raises(KeyError, match="has no column 'colour'"):
        route.agrees(update({}))


def test_select_keeps_the_order_and_takes_whole_blocks_where_it_can() -> None:
    mixed = [builders.change("insert", of, new=ROW, ordinal=n) for n, of in enumerate([DEFAULT, OTHER, DEFAULT])]
    both = frozenset({NAME, "public.other"})
    plain = Route({NAME: Rule(NAME)})
    assert plain.select(mixed, both) == [mixed[0], mixed[2]]
    assert plain.select(mixed, frozenset({"public.other"})) == ()
    ours = [mixed[0], mixed[2]]
    assert plain.select(ours, frozenset({NAME})) is ours
    assert Route({NAME: Rule(NAME), "public.other": Rule("public.other")}).select(mixed, both) is mixed
    assert plain.tables == frozenset({NAME})


def test_select_asks_each_rule_about_its_own_table() -> None:
    rules = {
        NAME: Rule(NAME, operations=frozenset({Operation.DELETE})),
        "public.other": Rule("public.other", operations=frozenset({Operation.INSERT, Operation.DELETE})),
    }
    changes = [
        builders.change("insert", DEFAULT, new=ROW),
        builders.change("delete", DEFAULT, old={"id": 1}, ordinal=1),
        builders.change("update", OTHER, new=ROW, ordinal=2),
        builders.change("insert", OTHER, new=ROW | {"id": 2}, ordinal=3),
    ]
    chosen = Route(rules).select(changes, frozenset(rules))
    assert [change.ordinal for change in chosen] == [1, 3]


def test_what_was_made_here_says_whom_it_is_for() -> None:
    def made(operation: str, said: bytes) -> Change:
        row = {"old": {"id": 1}} if operation == "delete" else {"new": ROW}
        return builders.change(operation, DEFAULT, within=builders.transaction().with_context(said), **row)  # type: ignore[arg-type]

    for_cache = b'{"repair": "3", "subscriptions": ["cache"]}'
    gone = made("delete", for_cache).as_derived()
    for one in (made("read", for_cache), gone):
        assert was_made_here(one)
        assert is_repair(one)
        assert was_read_for(one, "cache")
        assert not was_read_for(one, "other")
    assert was_read_for(made("read", b"{}"), "other")
    assert not is_repair(made("read", b'{"backfill": "3"}'))
    # An application may say of its own changes what it likes.
    assert not was_made_here(made("delete", for_cache))
    assert not is_repair(made("delete", for_cache))
