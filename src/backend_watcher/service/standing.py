"""What nobody tells, and is asked for when somebody looks: where the journal stands, how far each subscription is."""

from __future__ import annotations

import time
from collections.abc import Iterable

from backend_watcher.contracts import Journal
from backend_watcher.events.position import Position
from backend_watcher.telemetry.metrics import Samples


async def standing(journal: Journal, subscriptions: Iterable[str]) -> Samples:
    """Return the values of those metrics. Raises JournalError."""
    # Cursors first: what is captured in between then counts as lag, and not as less than none.
    cursors = await journal.cursors()
    state = await journal.state()
    lags = {
        name: await _lag(journal, cursors[name], state.last, state.durable_lsn)
        for name in subscriptions
        if name in cursors
    }
    return {
        "watcher_journal_bytes": {(): state.size_bytes},
        "watcher_journal_blocks": {(): state.blocks},
        "watcher_journal_oldest_time_seconds": {(): state.oldest_time} if state.oldest_time is not None else {},
        "watcher_journal_full": {(): state.full},
        "watcher_lag_bytes": {(name,): size for name, (size, _) in lags.items()},
        "watcher_lag_seconds": {(name,): seconds for name, (_, seconds) in lags.items()},
    }


async def _lag(journal: Journal, cursor: Position, last: Position | None, durable_lsn: int) -> tuple[int, float]:
    if last is None or cursor >= last:
        return 0, 0.0
    blocks = await journal.read(cursor, 1)
    oldest = blocks[0].changes[0].commit_time.timestamp() if blocks else None
    return max(0, durable_lsn - cursor.commit_lsn), max(0.0, time.time() - oldest) if oldest is not None else 0.0
