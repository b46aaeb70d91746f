"""What the running process knows of itself: told by the rooms, written to the log and into the journal's notes."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from backend_watcher.contracts import HeldKey, Journal
from backend_watcher.errors import ERROR_CHARACTERS_MAX, WatcherError, in_one_line
from backend_watcher.events.position import Position
from backend_watcher.events.schema_change import SchemaChange

log = structlog.get_logger("watcher")


@dataclass(slots=True)
class SubscriptionFigures:
    """How one subscription is doing."""

    state: str = "running"
    since: float = field(default_factory=time.time)
    delivered: int = 0
    batches: int = 0
    failures: int = 0
    attempt: int = 0
    error: str | None = None
    remedy: str | None = None
    retry_seconds: float | None = None
    skipped: int = 0
    detail: str = ""
    keys: dict[int, tuple[bool, int]] = field(default_factory=dict)
    """The held keys by their numbers: whether each is parked, and how many changes it holds."""
    cursor: Position | None = None

    def enter(self, state: str, detail: str = "") -> bool:
        """Note the state; say whether it is another one than before."""
        self.detail = detail
        if state == self.state:
            return False
        self.state, self.since = state, time.time()
        return True


class Figures:
    """An Observer that counts, logs what changes, and keeps notes for `watcher status`."""

    def __init__(self, subscriptions: list[str]) -> None:
        self.subscriptions = {name: SubscriptionFigures() for name in subscriptions}
        self.captured_changes = 0
        self.captured_bytes = 0
        self.source = "starting"
        self.source_detail = ""
        self.on_schema_change: list[Callable[[], object]] = []
        """Called, from any thread, after each `schema_changed`; must not wait."""
        self._started = time.time()
        self._lock = threading.Lock()
        self._written: dict[str, str] = {}

    def know(self, subscriptions: list[str]) -> None:
        """Count for these too from now on."""
        for name in subscriptions:
            self.subscriptions.setdefault(name, SubscriptionFigures())

    def captured(self, changes: int, size_bytes: int, lsn: int) -> None:
        """Count what went to the journal."""
        self.captured_changes += changes
        self.captured_bytes += size_bytes

    def source_state(self, state: str, detail: str) -> None:
        """Log each change of the connection's state."""
        with self._lock:
            self.source, self.source_detail = state, detail
        if state == "waiting":
            log.warning("source unavailable", detail=detail)
        elif state == "wal_alarm":
            log.error("PostgreSQL keeps too much WAL for the slot", detail=detail)
        elif state == "undecodable":
            log.error("PostgreSQL cannot send a change, and nothing behind it comes", detail=detail)
        elif state == "creating_slot":
            log.warning("the slot waits for open transactions", detail=detail)
        elif state == "prepared_open":
            log.warning("a prepared transaction is left open", detail=detail)
        elif state == "wal_warning":
            log.warning("PostgreSQL keeps much WAL for the slot", detail=detail)
        elif state == "queue_alarm":
            log.error("the queue of notifications fills", detail=detail)
        elif state == "dropped":
            log.error("notifications are lost", detail=detail)
        else:
            log.info(f"source {state}", **({"detail": detail} if detail else {}))  # noqa: G004 three fixed words

    def slot_held(self, held_bytes: int, safe_bytes: int | None) -> None:
        """Nothing is said of it: `source_state` tells when it is too much."""

    def schema_changed(self, change: SchemaChange) -> None:
        """Log what became of a table, louder where rows have to be read again, and wake who passes it on."""
        tell = log.error if change.needs_reread or change.kind == "identity_lost" else log.warning
        tell(
            "schema changed",
            number=change.number,
            kind=change.kind,
            table=change.table,
            what=change.what,
            needs_reread=change.needs_reread,
            reason=change.reason,
            remedy=change.remedy,
        )
        for wake in self.on_schema_change:
            wake()

    def delivered(self, subscription: str, changes: int, seconds: float, commit_micros: int) -> None:
        """Count a batch; a subscription that had failed runs again."""
        figures = self.subscriptions[subscription]
        figures.delivered += changes
        figures.batches += 1
        if figures.error is not None:
            figures.error = figures.remedy = figures.retry_seconds = None
            figures.attempt = 0
            if figures.state == "retrying" and figures.enter("running"):
                log.info("subscription delivers again", subscription=subscription)

    def failed(self, subscription: str, error: BaseException, attempt: int, retry_seconds: float | None) -> None:
        """Log a failure: what, what next, and what would mend it."""
        figures = self.subscriptions[subscription]
        figures.failures += 1
        figures.attempt = attempt
        figures.error = in_one_line(error)
        figures.remedy = error.remedy if isinstance(error, WatcherError) else None
        figures.retry_seconds = retry_seconds
        if figures.state == "running" and retry_seconds is not None:
            figures.enter("retrying")
        log.warning(
            "delivery failed",
            subscription=subscription,
            error=figures.error,
            attempt=attempt,
            again_in_seconds=None if retry_seconds is None else round(retry_seconds, 2),
            remedy=figures.remedy,
        )

    def skipped(self, subscription: str, position: Position, reason: str) -> None:
        """Count a change that a function asked to leave alone."""
        self.subscriptions[subscription].skipped += 1
        log.info("skipped", subscription=subscription, position=str(position), reason=reason[:ERROR_CHARACTERS_MAX])

    def held(self, subscription: str, key: HeldKey) -> None:
        """Remember how a held key stands; log it once when it is parked."""
        figures = self.subscriptions[subscription]
        before = figures.keys.get(key.number)
        figures.keys[key.number] = (key.parked, key.changes)
        if before is None and not key.parked:
            log.warning(
                "a key failed and is held; the others go on",
                subscription=subscription,
                table=key.table,
                number=key.number,
                error=key.error,
                remedy=key.remedy,
            )
        if key.parked and not (before and before[0]):
            log.error(
                "parked: a key waits for a person; the others go on",
                subscription=subscription,
                table=key.table,
                number=key.number,
                error=key.error,
                remedy=f"{key.remedy} Then `watcher parked redrive {subscription} {key.number}`.",
            )

    def released(self, subscription: str, key_number: int) -> None:
        """Forget a held key."""
        self.subscriptions[subscription].keys.pop(key_number, None)

    def subscription_state(self, subscription: str, state: str, detail: str) -> None:
        """Log each change of a subscription's state."""
        figures = self.subscriptions[subscription]
        if state == "stalled" and figures.state == "retrying":
            return  # it is known why
        if figures.enter(state, detail):
            tell = log.warning if state in ("paused", "full", "stopped", "stalled", "stuck") else log.info
            tell(f"subscription {state}", subscription=subscription, detail=detail)

    def settled(self, subscription: str, position: Position) -> None:
        """Remember the cursor."""
        self.subscriptions[subscription].cursor = position

    def read_back(self, subscription: str, within_seconds: float, visible: int, missed: int) -> None:
        """Nothing is said of it: the share over a while stands in a note of its own."""

    def drift(self, subscription: str, table: str, kind: str, persists: bool) -> None:
        """Log that an entry is not as it should be, and that it is again."""
        if persists:
            log.error(
                "drift: an entry of the sink differs, and stays so",
                subscription=subscription,
                table=table,
                kind=kind,
                remedy=f"`watcher verify {subscription} {table}` shows both versions.",
            )
        else:
            log.info("drift is over: the entry is as it should be", subscription=subscription, table=table, kind=kind)

    def verified(self, subscription: str, verdict: str, detail: str) -> None:
        """Log what a whole comparison came to."""
        tell = log.error if verdict == "different" else log.info
        tell("verified", subscription=subscription, verdict=verdict, detail=detail)

    def process_note(self, state: str) -> str:
        """Say as JSON what this process does."""
        with self._lock:
            note = {
                "pid": os.getpid(),
                "state": state,
                "since": self._started,
                "source_state": self.source,
                "detail": self.source_detail,
            }
        return json.dumps(note)

    async def write_notes(self, journal: Journal, state: str) -> None:
        """Put what changed since the last call where `watcher status` finds it."""
        notes = {"process": self.process_note(state)}
        notes |= {f"subscription:{name}": _note(figures) for name, figures in self.subscriptions.items()}
        for name, text in notes.items():
            if self._written.get(name) != text:
                await journal.set_note(name, text)
                self._written[name] = text


def _note(figures: SubscriptionFigures) -> str:
    kept: dict[str, Any] = {"state": figures.state, "since": figures.since, "detail": figures.detail}
    if figures.error is not None:
        kept |= {"error": figures.error, "remedy": figures.remedy, "attempt": figures.attempt}
    return json.dumps(kept)
