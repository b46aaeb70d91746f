"""May a journal go on with an outbox: every way in which the two may not belong together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend_watcher.capture.outbox_start import (
    NAME,
    PUBLICATION,
    OutboxSeen,
    check_end,
    check_known,
    check_new,
    check_place,
)
from backend_watcher.contracts import Identity
from backend_watcher.errors import ConfigError, JournalLost, SlotLost, SlotMoved, WatcherError, WrongCluster
from backend_watcher.events.position import START, Position

IDENTITY = Identity("7", 1, NAME, PUBLICATION)
SEEN = OutboxSeen("7", 1, "mine", 100)


def test_a_journal_goes_on_with_its_outbox_also_after_a_promotion() -> None:
    check_known("mine", IDENTITY, 100, SEEN, adopt=False)
    check_known("mine", IDENTITY, 150, replace(SEEN, timeline=2), adopt=False)


@pytest.mark.parametrize(
    ("mark", "identity", "durable", "seen", "error"),
    [
        ("mine", replace(IDENTITY, slot="watcher_shop"), 100, SEEN, ConfigError),
        ("mine", IDENTITY, 100, replace(SEEN, system_identifier="8"), WrongCluster),
        ("mine", IDENTITY, 100, replace(SEEN, journal=None), SlotLost),
        ("mine", IDENTITY, 100, replace(SEEN, journal="other"), SlotMoved),
        (None, IDENTITY, 100, SEEN, SlotMoved),
        ("mine", IDENTITY, 99, SEEN, SlotMoved),
    ],
)
def test_what_does_not_belong_together_stops(
    mark: str | None, identity: Identity, durable: int, seen: OutboxSeen, error: type[WatcherError]
) -> None:
    with pytest.raises(error):
        check_known(mark, identity, durable, seen, adopt=False)


def test_a_person_may_accept_a_loss_but_not_another_cluster() -> None:
    check_known("mine", IDENTITY, 99, replace(SEEN, journal="other"), adopt=True)
    with pytest.raises(WrongCluster):
        check_known("mine", IDENTITY, 99, replace(SEEN, system_identifier="8"), adopt=True)


def test_a_new_journal_takes_only_an_outbox_that_nobody_has_read() -> None:
    check_new("mine", "j", replace(SEEN, journal=None), adopt=False)
    check_new("mine", "j", SEEN, adopt=False)
    check_new("mine", "j", replace(SEEN, journal="other"), adopt=True)
    with pytest.raises(JournalLost, match="another journal"):
        check_new("mine", "j", replace(SEEN, journal="other"), adopt=False)


def test_an_outbox_of_another_place_is_refused() -> None:
    check_place("7", 500, 500, SEEN)
    for cluster, newest in (("8", 500), ("7", 501)):
        with pytest.raises(WrongCluster, match="copied here"):
            check_place(cluster, newest, 500, SEEN)


def test_a_journal_that_holds_more_than_the_outbox_gave_is_of_another_history() -> None:
    check_end(START, 0)
    check_end(Position(99, 3), 100)
    with pytest.raises(WrongCluster, match="promoted"):
        check_end(Position(100, 0), 100)
