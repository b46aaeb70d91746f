"""The cursor hears of every place of a batch once, in whatever pieces it is settled."""

from __future__ import annotations

import random

import pytest

from backend_watcher.delivery.batch import Batch
from backend_watcher.delivery.cursor import Frontier
from backend_watcher.delivery.settle import Settler
from backend_watcher.errors import SettledTwice
from backend_watcher.events.position import START, Position
from backend_watcher.testing import builders


def make(shares: list[int]) -> tuple[Frontier, Batch]:
    """A batch with so many changes of each stretch, and a cursor that waits for exactly these."""
    frontier = Frontier(START)
    stretches = [Position(number, 0) for number in range(1, len(shares) + 1)]
    for stretch, count in zip(stretches, shares, strict=True):
        frontier.open(stretch, count)
    changes = [builders.change(new={"id": 1, "name": "x" * n}, ordinal=n) for n in range(sum(shares))]
    return frontier, Batch(changes, tuple(zip(stretches, shares, strict=True)))


def test_a_whole_batch_settles_each_of_its_stretches() -> None:
    frontier, batch = make([2, 1, 3])
    told: list[Position] = []
    Settler(frontier, batch, lambda: told.append(frontier.cursor))(range(6))
    assert (frontier.cursor, frontier.in_flight) == (Position(3, 0), 0)
    assert told == [Position(3, 0)]


def test_pieces_in_any_order_come_to_the_same(dice: random.Random) -> None:
    for _ in range(500):
        shares = [dice.randint(1, 4) for _ in range(dice.randint(1, 5))]
        frontier, batch = make(shares)
        told: list[Position] = []
        settler = Settler(frontier, batch, lambda told=told, frontier=frontier: told.append(frontier.cursor))  # type: ignore[misc]
        left, settled = list(range(sum(shares))), set[int]()
        while left:
            piece = sorted(dice.sample(left, dice.randint(1, len(left))))
            left = [place for place in left if place not in piece]
            settler(piece)
            settled |= set(piece)
            ends = [sum(shares[: n + 1]) for n in range(len(shares))]
            whole = sum(settled >= set(range(end)) for end in ends)
            assert frontier.cursor == (Position(whole, 0) if whole else START)
            assert frontier.in_flight == len(left)
        assert told == sorted(told)
        assert told[-1] == Position(len(shares), 0)


def test_a_place_that_is_settled_twice_is_a_bug() -> None:
    frontier, batch = make([1, 1])
    settler = Settler(frontier, batch, lambda: None)
    settler([0])
    with pytest.raises(SettledTwice):
        settler([0])
