"""
Which changes of a batch are to be applied: each exactly once.

What comes in the stream's order is held against one position: everything up to it is applied, or is durably held by
delivery because of its key. What comes out of that order (a held key's changes, tried again) is remembered one by one.
What comes again on purpose (a replay) is written again where a key says which row it is, and otherwise left out: an
equal row more would be wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import blake2b

from backend_watcher.events.change import Change
from backend_watcher.events.position import Position
from backend_watcher.postgres.replica_session import Late
from backend_watcher.postgres.replica_tables import key_of

PART_BYTES = 8


def late_of(change: Change) -> Late:
    """
    Return what names a change for ever.

    The position does not suffice: one place may hold deletes of several rows, which a truncate stands for, and the
    halves of an update of a key.
    """
    digest = blake2b(b"%d" % change.code, digest_size=PART_BYTES)
    for table, key in change.identities():
        digest.update(b"\0%b\0%d\0%b" % (table.encode(), len(key), key))
    return change.transaction.commit_lsn, change.ordinal, digest.digest()


def due(batch: Sequence[Change], position: Position, late: Collection[Late]) -> Sequence[Change]:
    """Return the changes of the stream that are not yet applied, in order."""
    lsn, ordinal = position
    first = batch[0]
    if not late and not first.replayed and (first.transaction.commit_lsn, first.ordinal) > (lsn, ordinal):
        return batch
    left = []
    for change in batch:
        if change.replayed:
            if key_of(change.table):
                left.append(change)
        elif (change.transaction.commit_lsn, change.ordinal) > (lsn, ordinal) and late_of(change) not in late:
            left.append(change)
    return left


def newest(batch: Sequence[Change]) -> Change | None:
    """Return the last change that moves the position."""
    return next((change for change in reversed(batch) if not change.replayed), None)
