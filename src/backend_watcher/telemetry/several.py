"""One Observer that passes on to several what it is told: each call once to each, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from backend_watcher.contracts import HeldKey, Observer
from backend_watcher.events.position import Position
from backend_watcher.events.schema_change import SchemaChange
from backend_watcher.verifiable import ProofObserver


class Listener(Observer, ProofObserver, Protocol):
    """Told of the street and of proofs alike."""


class Several:
    """Passes everything on."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)

    def captured(self, changes: int, size_bytes: int, lsn: int) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.captured(changes, size_bytes, lsn)

    def source_state(self, state: str, detail: str) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.source_state(state, detail)

    def slot_held(self, held_bytes: int, safe_bytes: int | None) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.slot_held(held_bytes, safe_bytes)

    def schema_changed(self, change: SchemaChange) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.schema_changed(change)

    def delivered(self, subscription: str, changes: int, seconds: float, commit_micros: int) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.delivered(subscription, changes, seconds, commit_micros)

    def failed(self, subscription: str, error: BaseException, attempt: int, retry_seconds: float | None) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.failed(subscription, error, attempt, retry_seconds)

    def skipped(self, subscription: str, position: Position, reason: str) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.skipped(subscription, position, reason)

    def held(self, subscription: str, key: HeldKey) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.held(subscription, key)

    def released(self, subscription: str, key_number: int) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.released(subscription, key_number)

    def subscription_state(self, subscription: str, state: str, detail: str) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.subscription_state(subscription, state, detail)

    def settled(self, subscription: str, position: Position) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.settled(subscription, position)

    def read_back(self, subscription: str, within_seconds: float, visible: int, missed: int) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.read_back(subscription, within_seconds, visible, missed)

    def drift(self, subscription: str, table: str, kind: str, persists: bool) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.drift(subscription, table, kind, persists)

    def verified(self, subscription: str, verdict: str, detail: str) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.verified(subscription, verdict, detail)
