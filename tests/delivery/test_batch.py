"""Batches by count, bytes and age, against a plain list of what waits."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_watcher.delivery.batch import BatchLimits, LaneQueue, Run
from backend_watcher.events.change import Change
from backend_watcher.events.position import Position
from backend_watcher.testing import builders
from backend_watcher.testing.fakes import OwnedClock

SCHEDULES = 2000


def make(number: int, length: int = 1) -> Change:
    return builders.change(new={"id": 1, "name": "x" * length}, ordinal=number)


SIZE = make(0).size_bytes


class Waiting:
    """Everything put and not yet taken, each with its stretch: what the queue must agree with."""

    def __init__(self, limits: BatchLimits) -> None:
        self.limits = limits
        self.queue = LaneQueue(limits)
        self.left: list[tuple[Position, Change]] = []
        self.made = 0
        self.stretches = 0

    def put(self, lengths: list[int], now: float = 0.0) -> None:
        changes = [make(self.made + number, length) for number, length in enumerate(lengths)]
        self.made += len(changes)
        self.stretches += 1
        stretch = Position(self.stretches, 0)
        self.left += [(stretch, change) for change in changes]
        self.queue.put(Run(stretch, changes, now))

    def take(self) -> None:
        """Take a batch: it must be the longest front that keeps the limits, and at least one change."""
        expected: list[tuple[Position, Change]] = []
        for stretch, change in self.left:
            size = sum(taken.size_bytes for _, taken in expected) + change.size_bytes
            if expected and (len(expected) == self.limits.changes or size > self.limits.size_bytes):
                break
            expected.append((stretch, change))
        batch = self.queue.take()
        assert [change.ordinal for change in batch.changes] == [change.ordinal for _, change in expected]
        shared = [stretch for stretch, count in batch.shares for _ in range(count)]
        assert shared == [stretch for stretch, _ in expected]
        assert all(count > 0 for _, count in batch.shares)
        del self.left[: len(expected)]


def test_a_batch_is_the_longest_front_within_the_limits(dice: random.Random) -> None:
    for _ in range(SCHEDULES):
        limits = BatchLimits(dice.randint(1, 6), dice.choice([1, SIZE, 3 * SIZE, 10_000]))
        waiting = Waiting(limits)
        for _ in range(dice.randint(1, 12)):
            if dice.random() < 0.6 or not waiting.left:
                waiting.put([dice.choice([1, 1, 5, 90]) for _ in range(dice.randint(1, 9))])
            else:
                waiting.take()
            assert len(waiting.queue) == len(waiting.left)
        while waiting.left:
            waiting.take()
        assert waiting.queue.due(0.0, draining=False) is None


def test_what_the_journal_shares_with_other_readers_is_not_changed() -> None:
    changes = [make(number) for number in range(5)]
    queue = LaneQueue(BatchLimits(2))
    queue.put(Run(Position(1, 0), changes, 0.0))
    while len(queue):
        queue.take()
    assert [change.ordinal for change in changes] == [0, 1, 2, 3, 4]


def test_without_an_age_whatever_waits_is_due() -> None:
    waiting = Waiting(BatchLimits())
    assert waiting.queue.due(0.0, draining=False) is None
    assert waiting.queue.due(0.0, draining=True) is None
    waiting.put([1])
    assert waiting.queue.due(0.0, draining=False) == 0.0


def test_the_oldest_change_waits_for_company_as_long_as_it_may() -> None:
    clock = OwnedClock(100.0)
    waiting = Waiting(BatchLimits(3, 10_000, 2.0))
    waiting.put([1], clock.now())
    assert waiting.queue.due(clock.now(), draining=False) == 2.0
    clock.advance(1.5)
    waiting.put([1], clock.now())
    assert waiting.queue.due(clock.now(), draining=False) == 0.5
    assert waiting.queue.due(clock.now(), draining=True) == 0.0
    clock.advance(7.0)
    assert waiting.queue.due(clock.now(), draining=False) == 0.0
    waiting.take()
    assert waiting.queue.due(clock.now(), draining=False) is None


@pytest.mark.parametrize("lengths", [[1, 1, 1], [200]])
def test_a_full_batch_does_not_wait_for_its_age(lengths: list[int]) -> None:
    waiting = Waiting(BatchLimits(3, SIZE + 100, 60.0))
    waiting.put([1])
    assert waiting.queue.due(1.0, draining=False) == 59.0
    waiting.put(lengths)
    assert waiting.queue.due(1.0, draining=False) == 0.0
    waiting.take()
    waiting.put([1])
    waiting.take()


def test_what_is_left_of_a_full_batch_waits_again() -> None:
    waiting = Waiting(BatchLimits(100, 3 * SIZE, 60.0))
    waiting.put([1, 1, 1, 1])
    assert waiting.queue.due(1.0, draining=False) == 0.0
    waiting.take()
    assert waiting.queue.due(1.0, draining=False) == 59.0


# --- whole transactions ---


def sequence(lengths: list[int]) -> list[Change]:
    """Changes of transactions of these lengths, one after the other."""
    made = []
    for number, length in enumerate(lengths, 1):
        within = builders.transaction(number * 10)
        made += [builders.change(new={"id": 1}, ordinal=n, within=within) for n in range(length)]
    return made


@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=12),
    st.lists(st.integers(1, 9), min_size=1, max_size=20),
    st.integers(1, 6),
    st.lists(st.booleans(), min_size=60, max_size=60),
)
def test_transactions_come_whole_and_no_batch_is_larger_than_it_has_to_be(
    lengths: list[int], cuts: list[int], most: int, takes: list[bool]
) -> None:
    changes = sequence(lengths)
    queue, at, taken, coins = LaneQueue(BatchLimits(most), whole=True), 0, [], iter(takes)
    for cut in [*cuts, len(changes)]:
        if changes[at : at + cut]:
            queue.put(Run(Position(at, 0), changes[at : at + cut], 0.0))
            at += cut
        if at >= len(changes):
            queue.came_to(10_000)
        while (at >= len(changes) or next(coins)) and queue.due(0.0, draining=False) is not None:
            batch = queue.take()
            assert sum(count for _, count in batch.shares) == len(batch.changes)
            taken.append([change.transaction.commit_lsn for change in batch.changes])
    assert [lsn for lsns in taken for lsn in lsns] == [change.transaction.commit_lsn for change in changes]
    for lsns in taken:
        assert len(lsns) <= most or len(set(lsns)) == 1
    # No transaction is in two batches.
    assert sum(len(set(lsns)) for lsns in taken) == len(lengths)


def test_what_may_go_on_waits_until_its_end_is_known() -> None:
    first, second = sequence([2, 3])[:2], sequence([2, 3])[2:]
    queue = LaneQueue(BatchLimits(), whole=True)
    queue.put(Run(Position(1, 0), first, 0.0))
    queue.came_to(10)
    assert queue.due(0.0, draining=False) is None
    queue.came_to(11)
    assert queue.due(0.0, draining=False) == 0.0
    queue.put(Run(Position(2, 0), second[:1], 0.0))
    assert queue.take().changes == first
    assert queue.due(0.0, draining=False) is None
    assert queue.due(0.0, draining=True) is None


def test_pressed_it_gives_parts_and_goes_on_so_to_the_end_of_the_transaction() -> None:
    (first, *large), small = sequence([1, 6])[:7], sequence([1, 6, 2])[7:]
    queue = LaneQueue(BatchLimits(4), whole=True)
    queue.put(Run(Position(1, 0), [first, *large[:3]], 0.0))
    assert queue.take().changes == [first]
    assert queue.due(0.0, draining=False) is None
    assert queue.due(0.0, draining=False, pressed=True) == 0.0
    assert queue.take().changes == large[:3]
    queue.put(Run(Position(2, 0), large[3:5], 0.0))
    assert queue.due(0.0, draining=False) == 0.0
    assert queue.take().changes == large[3:5]
    queue.put(Run(Position(3, 0), [large[5], *small], 0.0))
    assert queue.take().changes == [large[5]]
    assert queue.due(0.0, draining=False) is None
    queue.came_to(100)
    assert queue.take().changes == small


def test_a_transaction_larger_than_a_batch_is_one_batch() -> None:
    changes = sequence([2, 9, 1])
    queue = LaneQueue(BatchLimits(3, 10), whole=True)
    queue.put(Run(Position(1, 0), changes, 0.0))
    assert [len(queue.take().changes), len(queue.take().changes)] == [2, 9]
