"""What PostgreSQL may forget, against a server that remembers every commit it made."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from backend_watcher.capture.acknowledge import Acknowledgement
from backend_watcher.errors import OutOfOrder

SCHEDULES = 3000


@dataclass(slots=True)
class World:
    """A WAL, what of it was sent, and how far the journal is; `ours` are commits with changes to be stored."""

    dice: random.Random
    tip: int
    commits: list[int] = field(default_factory=list)
    ours: set[int] = field(default_factory=set)
    sent: int = 0
    half_sent: bool = False
    # Each place the watcher was told of, and whether the journal has something to store before it.
    places: list[tuple[int, bool]] = field(default_factory=list)
    durable_to: int = 0

    def __post_init__(self) -> None:
        self.places.append((self.tip, False))

    def write(self) -> None:
        """Somebody writes: a commit of ours, one of others, or something that is no commit at all."""
        self.tip += self.dice.randint(1, 40)
        kind = self.dice.choice(["ours", "others", "none"])
        if kind != "none":
            self.commits.append(self.tip)
        if kind == "ours":
            self.ours.add(self.tip)

    @property
    def owed(self) -> list[int]:
        return [end for end, owed in self.places if owed and end > self.durable_to]

    @property
    def allowed(self) -> int:
        """The highest place we were told of with nothing owed at or before it."""
        return max(end for end, _ in self.places if not any(owed <= end for owed in self.owed))

    @property
    def told_to(self) -> int:
        return max(end for end, _ in self.places)


def receive(world: World, acknowledgement: Acknowledgement) -> None:
    """Some commits arrive together, and perhaps the beginning of the next one."""
    news = world.commits[world.sent : world.sent + world.dice.randint(0, 3)]
    world.sent += len(news)
    following = world.sent < len(world.commits)
    world.half_sent = following and (world.dice.random() < 0.3 or (world.half_sent and not news))
    owed = not world.ours.isdisjoint(news)
    newest = news[-1] if news else max([world.places[0][0], *world.commits[: world.sent]])
    acknowledgement.fed(newest, owed, world.half_sent)
    if news:
        world.places.append((newest, owed))


def keepalive(world: World, acknowledgement: Acknowledgement) -> None:
    """The server says how far it has read: to the end of the WAL, or into a commit that it did not send yet."""
    limit = world.commits[world.sent] - 1 if world.sent < len(world.commits) else world.tip
    lsn = world.dice.randint(min(world.told_to, limit), limit)
    acknowledgement.keepalive(lsn)
    if not world.half_sent:
        world.places.append((lsn, False))


def store(world: World, acknowledgement: Acknowledgement) -> None:
    """The journal makes a group durable: up to a commit, or to somewhere before it."""
    if world.owed:
        world.durable_to = max(world.durable_to, world.dice.choice(world.owed) - world.dice.choice([0, 0, 1]))
        acknowledgement.durable(world.durable_to)


def test_it_never_forgets_what_is_owed_and_forgets_all_else(dice: random.Random) -> None:
    for _ in range(SCHEDULES):
        world = World(dice, dice.randint(0, 1000))
        acknowledgement = Acknowledgement(world.tip)
        before = world.tip
        for _ in range(dice.randint(1, 30)):
            if dice.random() < 0.5:
                world.write()
            step = dice.choice([receive, receive, keepalive, store])
            step(world, acknowledgement)
            safe = acknowledgement.safe_lsn
            assert safe >= before, "it went back"
            lost = [end for end in world.ours if world.durable_to < end <= safe]
            assert not lost, f"{safe} lets PostgreSQL forget {lost}"
            assert safe == world.allowed
            assert acknowledgement.received_lsn == world.told_to
            assert acknowledgement.idle == (not world.owed and not world.half_sent)
            before = safe


def test_commits_that_go_back_are_a_bug() -> None:
    acknowledgement = Acknowledgement(10)
    acknowledgement.fed(20, owed=True, in_transaction=False)
    with pytest.raises(OutOfOrder, match="0/13, after one at 0/14"):
        acknowledgement.fed(19, owed=False, in_transaction=False)


def test_a_keepalive_in_the_middle_of_a_transaction_says_nothing() -> None:
    acknowledgement = Acknowledgement(10)
    acknowledgement.fed(10, owed=False, in_transaction=True)
    acknowledgement.keepalive(50)
    assert (acknowledgement.safe_lsn, acknowledgement.received_lsn, acknowledgement.idle) == (10, 10, False)
    acknowledgement.fed(40, owed=True, in_transaction=False)
    acknowledgement.keepalive(60)
    assert (acknowledgement.safe_lsn, acknowledgement.received_lsn) == (10, 60)
    acknowledgement.durable(40)
    assert (acknowledgement.safe_lsn, acknowledgement.idle) == (60, True)


def test_what_was_never_ours_is_passed_once_all_before_it_is_durable() -> None:
    acknowledgement = Acknowledgement(10)
    acknowledgement.fed(20, owed=True, in_transaction=False)
    acknowledgement.fed(30, owed=False, in_transaction=False)
    acknowledgement.fed(40, owed=True, in_transaction=False)
    assert acknowledgement.safe_lsn == 10
    acknowledgement.durable(20)
    assert acknowledgement.safe_lsn == 30
    acknowledgement.durable(40)
    assert acknowledgement.safe_lsn == 40
