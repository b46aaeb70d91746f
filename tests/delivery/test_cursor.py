"""The cursor against a model that remembers everything and recomputes it from the start."""

from __future__ import annotations

import random

import pytest

from backend_watcher.delivery.cursor import Frontier
from backend_watcher.errors import OutOfOrder, SettledTwice
from backend_watcher.events.position import START, Position

SCHEDULES = 3000


class Model:
    """Every stretch that was ever opened, and how many of its changes are still owed."""

    def __init__(self, start: Position) -> None:
        self.stretches: list[tuple[Position, int]] = [(start, 0)]

    @property
    def opened_to(self) -> Position:
        return self.stretches[-1][0]

    @property
    def owed(self) -> int:
        return sum(owed for _, owed in self.stretches)

    @property
    def allowed(self) -> Position:
        """The last position that has nothing owed at or before it."""
        good = [end for end, _ in self.stretches if not any(owed for e, owed in self.stretches if e <= end)]
        return max(good)

    def pay(self, index: int, count: int) -> Position:
        end, owed = self.stretches[index]
        self.stretches[index] = (end, owed - count)
        return end


def step(dice: random.Random, frontier: Frontier, model: Model) -> None:
    wish = dice.random()
    if wish < 0.4:
        last = model.opened_to
        following = Position(last.commit_lsn, last.ordinal + dice.randint(1, 3))
        if dice.random() < 0.5:
            following = Position(last.commit_lsn + dice.randint(1, 9), dice.randint(0, 4))
        changes = dice.choice([0, 0, 1, 2, 7])
        frontier.open(following, changes)
        model.stretches.append((following, changes))
    elif wish < 0.9:
        owing = [index for index, (_, owed) in enumerate(model.stretches) if owed]
        if owing:
            index = dice.choice(owing)
            count = dice.randint(1, model.stretches[index][1])
            frontier.settle(model.pay(index, count), count)
    elif wish < 0.95:
        with pytest.raises(OutOfOrder):
            frontier.open(dice.choice(model.stretches)[0], 1)
    else:
        end, owed = dice.choice(model.stretches)
        with pytest.raises(SettledTwice):
            frontier.settle(end, owed + 1)


def test_it_is_never_behind_nor_ahead_of_what_is_allowed(dice: random.Random) -> None:
    for _ in range(SCHEDULES):
        start = dice.choice([START, Position(5, 3)])
        frontier, model, before = Frontier(start), Model(start), start
        for _ in range(dice.randint(1, 25)):
            step(dice, frontier, model)
            assert frontier.cursor == model.allowed
            assert frontier.cursor >= before
            assert (frontier.in_flight, frontier.opened_to) == (model.owed, model.opened_to)
            before = frontier.cursor


def test_a_stretch_without_wanted_changes_is_passed_at_once_but_not_over_an_open_one() -> None:
    frontier = Frontier(START)
    frontier.open(Position(1, 0), 0)
    assert frontier.cursor == Position(1, 0)
    frontier.open(Position(2, 0), 2)
    frontier.open(Position(3, 0), 0)
    assert frontier.cursor == Position(1, 0)
    frontier.settle(Position(2, 0), 1)
    assert frontier.cursor == Position(1, 0)
    frontier.settle(Position(2, 0), 1)
    assert frontier.cursor == Position(3, 0)


def test_what_was_passed_cannot_be_settled_again() -> None:
    frontier = Frontier(START)
    frontier.open(Position(1, 0), 1)
    frontier.settle(Position(1, 0), 1)
    with pytest.raises(SettledTwice, match="0/1:0, which owes 0"):
        frontier.settle(Position(1, 0), 1)
    assert frontier.in_flight == 0


def test_the_bytes_in_flight_shrink_with_what_is_settled_and_end_at_none(dice: random.Random) -> None:
    for _ in range(200):
        frontier = Frontier(START)
        owed: dict[Position, int] = {}
        sizes: dict[Position, int] = {}
        for number in range(1, dice.randint(2, 8)):
            stretch, count, size = Position(number, 0), dice.randint(0, 5), dice.randint(0, 10_000)
            frontier.open(stretch, count, size)
            if count:
                owed[stretch], sizes[stretch] = count, size
        assert frontier.in_flight_bytes == sum(sizes.values())
        while owed:
            stretch = dice.choice(sorted(owed))
            count = dice.randint(1, owed[stretch])
            before = frontier.in_flight_bytes
            frontier.settle(stretch, count)
            assert frontier.in_flight_bytes <= before
            owed[stretch] -= count
            if not owed[stretch]:
                del owed[stretch]
        assert frontier.in_flight_bytes == 0
