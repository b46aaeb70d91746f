"""Transforms and predicates: in order, dropping, and failing as the failure of one change."""

from __future__ import annotations

from typing import Any

import pytest

from backend_watcher.delivery.route import Route, Rule
from backend_watcher.delivery.transform import transformed
from backend_watcher.errors import HandlerError
from backend_watcher.events.change import Change
from backend_watcher.testing.builders import change, transaction

PLAIN = Route({"public.products": Rule("public.products")})
ONE = change(new={"id": 1, "name": "a", "stock": 3})


def renamed(name: str) -> Any:
    return lambda one: one.replace(new={**one.new, "name": one.new["name"] + name})


def dropping(one: Change) -> None:
    return None


def broken(one: Change) -> Change:
    raise KeyError(0)


class Wrong:
    def __init__(self, made: object) -> None:
        self.made = made

    def __call__(self, one: Change) -> Any:
        return self.made


def guarded(predicate: Any) -> Route:
    return Route({"public.products": Rule("public.products", predicate=predicate)})


def test_without_any_the_change_is_the_same() -> None:
    assert transformed(PLAIN, (), ONE) is ONE


def test_they_are_applied_in_order() -> None:
    made = transformed(PLAIN, (renamed("b"), renamed("c")), ONE)
    assert made is not None
    assert made.new is not None
    assert made.new["name"] == "abc"


def test_a_dropped_change_meets_no_further_transform() -> None:
    assert transformed(PLAIN, (dropping, broken), ONE) is None


def test_what_the_predicate_refuses_meets_no_transform() -> None:
    assert transformed(guarded(lambda one: one.new["stock"] > 5), (broken,), ONE) is None
    assert transformed(guarded(lambda one: one.new["stock"] == 3), (), ONE) is ONE


@pytest.mark.parametrize("where", ["transform broken", "the predicate"])
def test_what_one_raises_names_it_and_the_position(where: str) -> None:
    route = guarded(broken) if where == "the predicate" else PLAIN
    with pytest.raises(HandlerError, match=f"{where} at 0/1000:0: KeyError: 0") as caught:
        transformed(route, () if where == "the predicate" else (broken,), ONE)
    assert isinstance(caught.value.__cause__, KeyError)


def read(values: dict[str, Any], context: bytes) -> Change:
    return change("read", new=values, within=transaction().with_context(context))


ROW = {"id": 1, "name": "a", "stock": 3}


@pytest.mark.parametrize(
    ("route", "transforms"),
    [(guarded(lambda one: one.new["stock"] > 5), ()), (PLAIN, [lambda one: None if one.new is not None else one])],
)
def test_a_row_that_a_repair_read_and_that_is_dropped_is_a_delete(route: Route, transforms: Any) -> None:
    made = transformed(route, transforms, read(ROW, b'{"repair": "3"}'))
    assert made is not None
    assert (made.operation, made.new, made.old, made.key) == ("delete", None, ROW, (1,))
    assert transformed(route, transforms, read(ROW, b'{"backfill": "3"}')) is None
    # A delete is no refuge for what a transform drops whatever it is.
    assert transformed(route, [dropping], read(ROW, b'{"repair": "3"}')) is None


def test_a_key_that_a_repair_found_without_a_row_is_not_asked_about() -> None:
    asks_the_row = guarded(lambda one: one.row["stock"] > 5)
    gone = change("delete", old={"id": 1}, within=transaction().with_context(b'{"repair": "3"}'))
    assert transformed(asks_the_row, (), gone.as_derived()) is not None
    # What the application deletes is asked about, whatever it says of it.
    with pytest.raises(HandlerError, match="the predicate"):
        transformed(asks_the_row, (), gone)


@pytest.mark.parametrize("made", [1, "text", {"id": 1}, [ONE]])
def test_what_is_not_a_change_is_refused(made: object) -> None:
    with pytest.raises(HandlerError, match=f"transform Wrong at .* returned {type(made).__name__}"):
        transformed(PLAIN, (Wrong(made),), ONE)
