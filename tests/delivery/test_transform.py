"""Functions from a change to a change."""

from __future__ import annotations

import pytest

from backend_watcher.delivery.transform import apply
from backend_watcher.errors import HandlerError
from backend_watcher.events.change import Change
from backend_watcher.testing.builders import change

CHANGES = [change(new={"id": number, "name": "Ani", "stock": number}, ordinal=number) for number in range(4)]


def mask(one: Change) -> Change:
    assert one.new is not None
    return one.replace(new=one.new.to_dict() | {"name": "***"})


def even(one: Change) -> Change | None:
    return one if one.row["id"] % 2 == 0 else None


def test_without_transforms_nothing_is_copied() -> None:
    assert apply((), CHANGES) is CHANGES


def test_each_is_given_what_the_one_before_made() -> None:
    made = apply((even, mask, even), CHANGES)
    assert [(one.row["id"], one.row["name"]) for one in made] == [(0, "***"), (2, "***")]
    assert [one.position for one in made] == [CHANGES[0].position, CHANGES[2].position]
    assert CHANGES[0].row["name"] == "Ani"


def test_what_was_dropped_is_shown_to_nobody() -> None:
    assert apply((lambda _: None, lambda one: pytest.fail("called")), CHANGES) == []


def test_what_a_transform_raises_names_it_and_the_place() -> None:
    def broken(one: Change) -> Change:
        raise KeyError(one.ordinal)

    with pytest.raises(HandlerError, match=r"transform broken at 0/1000:0: KeyError: 0") as caught:
        apply((broken,), CHANGES)
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("made", [{"id": 1}, True, [CHANGES[0]]])
def test_anything_but_a_change_or_none_is_refused(made: object) -> None:
    class Wrong:
        def __call__(self, _: Change) -> object:
            return made

    with pytest.raises(HandlerError, match=f"transform Wrong at .* returned {type(made).__name__}"):
        apply((Wrong(),), CHANGES)  # type: ignore[arg-type]
