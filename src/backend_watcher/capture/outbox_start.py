"""
May a journal go on with an outbox, and where? Decided here, before anything is read. Pure.

The outbox says which journal it is bound to, and how much that journal has made durable: what is not needed any more
may be gone. So a journal that knows less than the outbox has forgotten has lost changes, and one that knows more than
the outbox has ever given was filled from another history of the cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

from backend_watcher.contracts import Identity
from backend_watcher.errors import ConfigError, JournalLost, SlotLost, SlotMoved, WrongCluster
from backend_watcher.events.position import Position, format_lsn

NAME = "outbox"
"""What stands for the slot's name in the identity of a journal, and in every event id."""

PUBLICATION = "watcher.outbox"

ADOPT = "Put the journal back, or accept the loss with `watcher run --adopt-slot`."


@dataclass(frozen=True, slots=True)
class OutboxSeen:
    """The server and the outbox as they are now. `end_lsn` is where the newest batch ends that is durable here."""

    system_identifier: str
    timeline: int
    journal: str | None
    end_lsn: int


def check_place(cluster: str, newest_xid: int, next_xid: int, seen: OutboxSeen) -> None:
    """
    Raise WrongCluster where the outbox does not belong to the server it is on.

    It was made in `cluster`; `newest_xid` is what its newest snapshot takes for the next transaction, `next_xid` what
    the server does. A copy, or a server from before that snapshot, would give ids that count as read already.
    """
    if cluster != seen.system_identifier or newest_xid > next_xid:
        raise WrongCluster(
            "the outbox was copied here from another cluster, or the server was restored to before it was last read",
            remedy="`watcher outbox remove`, `watcher outbox install`, a new journal, and load the tables again.",
        )


def check_new(mark: str, journal_name: str, seen: OutboxSeen, *, adopt: bool) -> None:
    """Raise JournalLost where an outbox was read already and the journal does not know of it."""
    if seen.journal is not None and seen.journal != mark and not adopt:
        raise JournalLost(
            f"the outbox was read to {format_lsn(seen.end_lsn)} by another journal, but journal {journal_name} is new",
            remedy=ADOPT,
        )


def check_known(mark: str | None, identity: Identity, durable_lsn: int, seen: OutboxSeen, *, adopt: bool) -> None:
    """Raise ConfigError, WrongCluster, SlotLost or SlotMoved unless the journal can go on."""
    if identity.slot != NAME or identity.publication != PUBLICATION:
        raise ConfigError(
            [f"source.kind is 'outbox', but the journal was written from slot {identity.slot!r}"],
            remedy="Correct source.kind, or give the outbox a journal of its own.",
        )
    if seen.system_identifier != identity.system_identifier:
        raise WrongCluster(
            f"the journal was written from cluster {identity.system_identifier}, the server is {seen.system_identifier}"
        )
    if adopt:
        return
    if seen.journal is None:
        raise SlotLost(
            "the outbox was removed and made again since: what was written in between is missing",
            remedy="Accept the loss with `watcher run --adopt-slot`, and load the tables again.",
        )
    if seen.journal != mark:
        raise SlotMoved("the outbox is bound to another journal, which has read it since", remedy=ADOPT)
    if seen.end_lsn > durable_lsn:
        raise SlotMoved(
            f"the outbox was read to {format_lsn(seen.end_lsn)}, after the journal's end at {format_lsn(durable_lsn)}: "
            "this journal is an older copy",
            remedy=ADOPT,
        )


def check_end(last: Position, end_lsn: int) -> None:
    """
    Raise WrongCluster where the journal holds more than the outbox ever gave; `end_lsn` is where its last batch ends.

    A batch is written down on the server, after all that it holds, before any of it is read. If the server does not
    know of a batch that the journal has, it was restored or promoted without its newest transactions, and gives their
    ids again.
    """
    if last.commit_lsn >= end_lsn and last.ordinal >= 0:
        raise WrongCluster(
            f"the journal holds {last}, and the outbox on the server ends at {format_lsn(end_lsn)}: "
            "the server was restored or promoted without its newest transactions",
            remedy="Start a new journal and load the tables again.",
        )
