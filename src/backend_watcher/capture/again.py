"""
When the source is tried again after a session ended, and when not any more.

What time mends is tried again with decorrelated jitter. A server that shuts down is left alone meanwhile. Bytes
that make no sense may have been spoilt on their way: they are read once more, and believed the second time. A
slot whose WAL the server cannot read is tried three times at one place, a change that it cannot send a few times an
hour.
"""

from __future__ import annotations

import random

from backend_watcher.capture.undecodable import TRIES_SECONDS
from backend_watcher.errors import (
    OutOfOrder,
    ProtocolError,
    RetryKind,
    SlotLost,
    SourceError,
    UndecodableChange,
    UnknownRelation,
    WatcherError,
)
from backend_watcher.postgres.translate import state_of

RETRY_SECONDS_MIN = 0.5
RETRY_SECONDS_MAX = 5.0
"""Below the ten seconds in which a source that is back is to be streaming again, connecting included."""
SLOT_TRIES_MAX = 3
UNREADABLE_SLOT = frozenset({"55000", "58P01"})
"""SQLSTATEs of a slot that cannot be read: it was given up, or a WAL file it needs is gone."""


class Again:
    """Decides after each session."""

    def __init__(self) -> None:
        self._delay = 0.0
        self._place: tuple[str, int] | None = None
        self._times = 0
        self._change_lsn: int | None = None

    def after(self, error: WatcherError, lived_seconds: float, durable_lsn: int) -> float:
        """
        Return how many seconds to wait before the next session. Raises where there is to be none.

        `lived_seconds` is how long the session lived, `durable_lsn` how far the journal has come.
        """
        if isinstance(error, UndecodableChange):
            first, self._change_lsn = self._change_lsn != error.change_lsn, error.change_lsn
            return TRIES_SECONDS[0] if first else TRIES_SECONDS[1]
        unreadable = state_of(error) in UNREADABLE_SLOT
        spoilt = isinstance(error, ProtocolError | OutOfOrder | UnknownRelation)
        if unreadable and isinstance(error, SourceError):
            if self._again_at("slot", durable_lsn) >= SLOT_TRIES_MAX:
                raise SlotLost(f"PostgreSQL cannot read the slot, tried {SLOT_TRIES_MAX} times: {error.message}")
        elif spoilt:
            if self._again_at("bytes", durable_lsn) > 1:
                raise error
        elif error.retry is not RetryKind.LATER or not isinstance(error, SourceError):
            raise error
        if lived_seconds > RETRY_SECONDS_MAX:
            self._delay = 0.0
        most = max(RETRY_SECONDS_MIN, 3 * self._delay)
        self._delay = min(RETRY_SECONDS_MAX, random.uniform(RETRY_SECONDS_MIN, most))
        return max(self._delay, error.after_seconds or 0.0)

    def _again_at(self, kind: str, durable_lsn: int) -> int:
        """Count how often this happened at this place."""
        place = (kind, durable_lsn)
        self._times = self._times + 1 if place == self._place else 1
        self._place = place
        return self._times
