"""Every reason not to begin, and every way to begin."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend_watcher.capture.start import SlotSeen, SourceSeen, check_known, check_names, check_new
from backend_watcher.contracts import Identity
from backend_watcher.errors import (
    ConfigError,
    JournalLost,
    PublicationLost,
    SlotLost,
    SlotMoved,
    SourceRefused,
    WatcherError,
    WrongCluster,
)

IDENTITY = Identity("71", 3, "shop_slot", "shop")
DURABLE = 0x2000
SLOT = SlotSeen("pgoutput", "shop", 0x1F00, None)
FAILED_OVER = replace(SLOT, failover=True)
SEEN = SourceSeen("71", 3, 0x3000, "shop", SLOT, publication_exists=True)


def with_slot(**values: object) -> SourceSeen:
    return replace(SEEN, slot=replace(SLOT, **values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "seen",
    [
        SEEN,
        with_slot(confirmed_flush_lsn=DURABLE),
        with_slot(confirmed_flush_lsn=0),
        replace(SEEN, flush_lsn=DURABLE),
        replace(SEEN, timeline=5, fork_lsn=DURABLE, slot=FAILED_OVER),
    ],
)
def test_a_journal_goes_on_where_it_ended(seen: SourceSeen) -> None:
    check_known("shop_slot", IDENTITY, DURABLE, seen)


@pytest.mark.parametrize(
    ("seen", "error", "words"),
    [
        (replace(SEEN, system_identifier="72"), WrongCluster, "written from cluster 71, the server is 72"),
        (replace(SEEN, timeline=4), WrongCluster, "timeline 3, the server is on 4"),
        (replace(SEEN, timeline=2), WrongCluster, "restored or promoted"),
        (replace(SEEN, timeline=4, fork_lsn=DURABLE - 1, slot=FAILED_OVER), WrongCluster, "which began at 0/1FFF"),
        (replace(SEEN, timeline=4, fork_lsn=DURABLE), WrongCluster, "no failover slot"),
        (replace(SEEN, timeline=4, fork_lsn=DURABLE, slot=None), SlotLost, "was not copied to this server"),
        (
            replace(SEEN, timeline=4, fork_lsn=DURABLE, slot=replace(FAILED_OVER, confirmed_flush_lsn=DURABLE + 1)),
            SlotMoved,
            "stands at",
        ),
        (replace(SEEN, flush_lsn=DURABLE - 1), WrongCluster, "reaches 0/2000, the server only 0/1FFF"),
        (replace(SEEN, slot=None), SlotLost, "'shop_slot' does not exist any more"),
        (with_slot(lost_because="wal_removed"), SlotLost, "is lost: wal_removed"),
        (with_slot(confirmed_flush_lsn=None), SlotLost, "it has no position"),
        (with_slot(plugin="wal2json"), SourceRefused, "plugin 'wal2json', not pgoutput"),
        (with_slot(plugin=None), SourceRefused, "plugin None"),
        (with_slot(database="other"), SourceRefused, "database 'other', not 'shop'"),
        (with_slot(confirmed_flush_lsn=DURABLE + 1), SlotMoved, "stands at 0/2001, after the journal's end at 0/2000"),
        (replace(SEEN, publication_exists=False), PublicationLost, "publication 'shop' does not exist any more"),
    ],
)
def test_what_could_hide_a_gap_stops(seen: SourceSeen, error: type[WatcherError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        check_known("shop_slot", IDENTITY, DURABLE, seen)
    assert type(caught.value) is error


def test_another_slot_than_the_journals_is_a_wrong_setting() -> None:
    with pytest.raises(
        ConfigError, match=r"source\.slot is 'other', but the journal was written from slot 'shop_slot'"
    ):
        check_known("other", IDENTITY, DURABLE, SEEN)


def test_another_publication_than_the_journals_is_a_wrong_setting() -> None:
    check_names(IDENTITY, "shop")
    with pytest.raises(ConfigError, match=r"source.publication is 'other', but the journal was written with 'shop'"):
        check_names(IDENTITY, "other")


def test_of_several_reasons_the_cluster_is_named_first() -> None:
    wrong = SourceSeen("72", 9, 0, "other", None, publication_exists=False)
    with pytest.raises(WrongCluster, match="cluster 71"):
        check_known("shop_slot", IDENTITY, DURABLE, wrong)


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("publication_exists", [True, False])
def test_without_a_slot_a_new_journal_gets_one(ours: bool, publication_exists: bool) -> None:
    seen = replace(SEEN, slot=None, publication_exists=publication_exists)
    assert check_new("shop_slot", "j.db", seen, ours=ours) is None


def test_a_slot_of_our_own_is_taken_where_it_stands() -> None:
    assert check_new("shop_slot", "j.db", SEEN, ours=True) == 0x1F00


@pytest.mark.parametrize("seen", [SEEN, with_slot(confirmed_flush_lsn=None), with_slot(lost_because="wal_removed")])
def test_a_slot_that_somebody_used_means_that_the_journal_is_lost(seen: SourceSeen) -> None:
    with pytest.raises(JournalLost, match=r"slot 'shop_slot' exists .* but the journal j.db is new"):
        check_new("shop_slot", "j.db", seen, ours=False)


@pytest.mark.parametrize(
    ("seen", "error"),
    [
        (with_slot(lost_because="wal_removed"), SlotLost),
        (with_slot(confirmed_flush_lsn=None), SlotLost),
        (with_slot(plugin="wal2json"), SourceRefused),
        (with_slot(database="other"), SourceRefused),
    ],
)
def test_even_our_own_slot_must_be_usable(seen: SourceSeen, error: type[WatcherError]) -> None:
    with pytest.raises(error):
        check_new("shop_slot", "j.db", seen, ours=True)
