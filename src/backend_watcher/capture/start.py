"""
May streaming begin? Decided from plain facts before every start, because START_REPLICATION accepts any position.

Asked for a position before the slot's, PostgreSQL forwards it in silence; asked for one after, it skips what
lies between. So what the journal knows is compared with what the server says, and anything that could hide a
gap stops here. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from backend_watcher.contracts import Identity
from backend_watcher.errors import (
    ConfigError,
    JournalLost,
    PublicationLost,
    SlotLost,
    SlotMoved,
    SourceRefused,
    WrongCluster,
)
from backend_watcher.events.position import format_lsn


@dataclass(frozen=True, slots=True)
class SlotSeen:
    """The slot as the server describes it."""

    plugin: str | None
    database: str | None
    confirmed_flush_lsn: int | None
    lost_because: str | None
    failover: bool = False


@dataclass(frozen=True, slots=True)
class SourceSeen:
    """
    The server, the slot and the publication as they are now; None for what does not exist.

    `fork_lsn` is where the server's history left the journal's timeline, None if it never was on it.
    """

    system_identifier: str
    timeline: int
    flush_lsn: int
    database: str
    slot: SlotSeen | None
    publication_exists: bool
    fork_lsn: int | None = None


def check_known(slot_name: str, identity: Identity, durable_lsn: int, seen: SourceSeen) -> None:
    """
    Raise unless the journal's stream can go on where it ended. `slot_name` is the slot that `seen` shows.

    Raises WrongCluster, ConfigError, SlotLost, SlotMoved, SourceRefused or PublicationLost.
    """
    if seen.system_identifier != identity.system_identifier:
        raise WrongCluster(
            f"the journal was written from cluster {identity.system_identifier}, the server is {seen.system_identifier}"
        )
    if seen.timeline != identity.timeline:
        _check_promoted(identity, durable_lsn, seen)
    if seen.flush_lsn < durable_lsn:
        raise WrongCluster(
            f"the journal reaches {format_lsn(durable_lsn)}, the server only {format_lsn(seen.flush_lsn)}: "
            "it was restored from an older backup"
        )
    if slot_name != identity.slot:
        # It may well stand before the journal's end, and belong to somebody else.
        raise ConfigError(
            [f"source.slot is {slot_name!r}, but the journal was written from slot {identity.slot!r}"],
            remedy="Correct source.slot, or give the other slot a journal of its own.",
        )
    slot = seen.slot
    if slot is None:
        raise SlotLost(f"replication slot {identity.slot!r} does not exist any more, or was not copied to this server")
    _check_slot(identity.slot, slot, seen.database)
    assert slot.confirmed_flush_lsn is not None
    if slot.confirmed_flush_lsn > durable_lsn:
        raise SlotMoved(
            f"slot {identity.slot!r} stands at {format_lsn(slot.confirmed_flush_lsn)}, "
            f"after the journal's end at {format_lsn(durable_lsn)}: it was advanced or made again, or this journal "
            "is an older copy"
        )
    if not seen.publication_exists:
        raise PublicationLost(f"publication {identity.publication!r} does not exist any more")


def check_names(identity: Identity, publication: str) -> None:
    """Raise ConfigError where the settings name another publication than the journal was written with."""
    if publication != identity.publication:
        raise ConfigError(
            [f"source.publication is {publication!r}, but the journal was written with {identity.publication!r}"],
            remedy="Correct source.publication, or accept the other one with `watcher run --adopt-slot`.",
        )


def _check_promoted(identity: Identity, durable_lsn: int, seen: SourceSeen) -> None:
    """
    Let a journal follow a promotion only where nothing is missing and nothing is too much.

    All it holds was committed before the histories parted, and the slot was copied by PostgreSQL itself, with
    the catalog rows it needs. Where the slot stands is compared as always.
    """
    parted = f"the journal was written on timeline {identity.timeline}, the server is on {seen.timeline}"
    if seen.timeline < identity.timeline or seen.fork_lsn is None:
        raise WrongCluster(f"{parted}: it was restored or promoted since, and does not have the journal's history")
    if durable_lsn > seen.fork_lsn:
        raise WrongCluster(
            f"{parted}, which began at {format_lsn(seen.fork_lsn)}, and the journal reaches "
            f"{format_lsn(durable_lsn)}: it was restored or promoted since, and what lies between is not on the server",
            remedy="Start a new journal and load the tables again; synchronized_standby_slots prevents this.",
        )
    if seen.slot is not None and not seen.slot.failover:
        raise WrongCluster(
            f"{parted}: it was restored or promoted since, and slot {identity.slot!r} is no failover slot, "
            "so nobody knows whether it was copied in time",
            remedy="Start a new journal and load the tables again; failover slots (PostgreSQL 17) prevent this.",
        )


def check_new(slot_name: str, journal: str, seen: SourceSeen, *, ours: bool) -> int | None:
    """
    Say where a new journal begins: at the slot that is there already, or, with None, at one to be created.

    `ours` says that this slot is known to belong to this journal: its creation was noted, or a person said so.
    Raises JournalLost for any other slot that is already there.
    """
    slot = seen.slot
    if slot is None:
        return None
    if not ours:
        raise JournalLost(
            f"slot {slot_name!r} exists and was confirmed to {format_lsn(slot.confirmed_flush_lsn or 0)}, "
            f"but the journal {journal} is new"
        )
    _check_slot(slot_name, slot, seen.database)
    return slot.confirmed_flush_lsn


def _check_slot(name: str, slot: SlotSeen, database: str) -> None:
    if slot.plugin != "pgoutput":
        raise SourceRefused(
            f"slot {name!r} belongs to plugin {slot.plugin!r}, not pgoutput", remedy="Choose another source.slot."
        )
    if slot.database != database:
        raise SourceRefused(
            f"slot {name!r} belongs to database {slot.database!r}, not {database!r}",
            remedy="Choose another source.slot, or correct the database in the DSN.",
        )
    if slot.lost_because is not None or slot.confirmed_flush_lsn is None:
        raise SlotLost(f"slot {name!r} is lost: {slot.lost_because or 'it has no position'}")
