"""
The whole architecture on one screen: what each room promises the others.

A change walks Source → Journal → Sink. Two things walk back: the journal's `durable_lsn`, from which capture
tells PostgreSQL what it may forget, and not asking for more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeAlias, runtime_checkable

from backend_watcher.events.change import Change
from backend_watcher.events.chunk import Block, Chunk
from backend_watcher.events.position import Position
from backend_watcher.events.schema_change import SchemaChange
from backend_watcher.events.transaction import Stream

Transform: TypeAlias = Callable[[Change], Change | None]
"""Rename, mask, filter; return None to drop. Never does I/O, never waits."""


class Receipt(StrEnum):
    """What a sink promises about a batch it took."""

    DURABLE = "durable"
    """This batch and every earlier ACCEPTED one survive a crash of the watcher."""
    ACCEPTED = "accepted"
    """The sink owns the batch, but we must be ready to send it again until a DURABLE follows."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which stream a journal was written from; compared with the server before every start."""

    system_identifier: str
    timeline: int
    slot: str
    publication: str


@dataclass(frozen=True, slots=True)
class JournalState:
    """Where a journal stands. Sizes in bytes, times in seconds since 1970."""

    first: Position | None
    last: Position | None
    durable_lsn: int
    blocks: int
    size_bytes: int
    oldest_time: float | None
    full: bool


@dataclass(frozen=True, slots=True)
class HeldKey:
    """
    A key of a subscription that failed: its changes are kept in the journal, in order, and the cursor moves on.

    Usually one key; more where an update of a primary key tied two together. `number` names it in the subscription. It
    is tried again at `due_at`; with None it is *parked*, and waits for a person. Times are in seconds since 1970.
    """

    number: int
    table: str
    key: str
    """The key for people, as JSON."""
    keys: Mapping[tuple[str, bytes], Position]
    """What later changes are recognised by, a table's full name and `Change.key_bytes`, with the newest one kept."""
    attempts: int
    first_at: float
    last_at: float
    due_at: float | None
    error: str
    remedy: str
    changes: int = 0
    """How many are kept, the failing one first. Counted when it is read, not stored."""

    @property
    def parked(self) -> bool:
        """Say that it waits for a person."""
        return self.due_at is None


@dataclass(frozen=True, slots=True)
class HeldChange:
    """A change that is kept because of its key: of which `HeldKey`, and its place among all of the subscription."""

    key_number: int
    number: int
    change: Change


@dataclass(frozen=True, slots=True)
class Audit:
    """What a person did to a subscription, and why. `at` in seconds since 1970."""

    at: float
    actor: str
    action: str
    subject: str
    detail: str


class Source(Protocol):
    """Where changes come from: reads, appends to the journal, confirms what the journal made durable."""

    async def run(self) -> None:
        """Read until cancelled or until going on would not be safe; raises a WatcherError then."""


class Journal(Protocol):
    """
    The durable, ordered log of everything captured, with a cursor per subscription.

    One writer, many readers, in any thread and event loop. A change can be read as soon as it is appended: until
    it is durable here the source still holds it, and sends it again after a crash. A cursor becomes durable
    together with what it has passed, or after it, never before.
    """

    async def open(self) -> None:
        """Take the journal for this process; raises JournalLocked if another has it."""

    async def close(self) -> None:
        """Make everything durable, then let go. May be called twice."""

    async def append(self, chunk: Chunk) -> None:
        """
        Take a chunk; return when it is queued, waiting while the queue or the quota is full.

        Changes at or before the journal's last position are already here and must not be appended again;
        raises OutOfOrder. Raises JournalBroken once a write has failed: nothing after it is accepted.
        """

    async def advance(self, lsn: int) -> None:
        """Note, durably and in order with the chunks, that the source held nothing for us before `lsn`."""

    @property
    def durable_lsn(self) -> int:
        """Everything the source committed before this LSN is stored here. Never goes back."""

    @property
    def last_position(self) -> Position:
        """The position of the newest durable change, START if there is none."""

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback`, from any thread, after each durable group; it must not wait. Returns what ends it."""

    def listen_news(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback`, from any thread, when there may be new changes; it must not wait. Returns what ends it."""

    async def read(self, after: Position, limit_bytes: int) -> Sequence[Block]:
        """Return blocks with the changes after a position, in order, about `limit_bytes` of them; [] if none."""

    async def cursors(self) -> Mapping[str, Position]:
        """Return the cursor of each subscription that has one."""

    def save_cursor(self, subscription: str, position: Position) -> None:
        """Note a cursor; written with the next group, or within a fraction of a second. Never moved back."""

    def forget_cursor(self, subscription: str) -> None:
        """Forget a subscription on purpose: its cursor no longer holds back retention."""

    def hold_changes(self, subscription: str, changes: Sequence[HeldChange], key: HeldKey | None = None) -> None:
        """
        Keep changes of a failing key apart, and, with `key`, say how it stands.

        Durable with or before every cursor that is noted later. A number that is kept already is kept once.
        """

    def let_go(self, subscription: str, numbers: Sequence[int]) -> None:
        """Forget changes that were kept, by their numbers: they are delivered, or discarded on purpose."""

    def forget_key(self, subscription: str, number: int, into: int | None = None) -> None:
        """Forget a held key that owes nothing any more; with `into`, first give what it holds to that one."""

    async def held_keys(self, subscription: str) -> Sequence[HeldKey]:
        """Return every key that is held, in the order of their numbers."""

    async def held_changes(
        self, subscription: str, key_number: int | None = None, *, after: int = -1, limit: int = 1000
    ) -> Sequence[HeldChange]:
        """
        Return kept changes (of one held key, or of all) with numbers above `after`, in order.

        What was noted before this call is among them.
        """

    async def audit(self, entry: Audit) -> None:
        """Write down what a person did. Durable when it returns; never changed or removed afterwards."""

    async def audits(self, *, limit: int = 1000) -> Sequence[Audit]:
        """Return the newest entries, oldest first."""

    async def flush(self) -> None:
        """Return when everything noted so far is durable."""

    async def identity(self) -> Identity | None:
        """Return what `save_identity` stored, None for a new journal."""

    async def save_identity(self, identity: Identity, durable_lsn: int) -> None:
        """Bind a new journal to a stream that begins at `durable_lsn`. Durable when it returns."""

    async def get_note(self, name: str) -> str | None:
        """Return a small named text kept with the journal."""

    async def set_note(self, name: str, text: str | None) -> None:
        """Keep, or with None forget, a small named text. Durable when it returns."""

    async def state(self) -> JournalState:
        """Say where the journal stands."""


@runtime_checkable
class Sink(Protocol):
    """
    Where changes go. May see a change twice, and must end in the same state.

    `write` may be called for several batches at once, never for two with a key in common: of one key all is in order.
    """

    async def open(self) -> None:
        """Connect. Raises SinkUnavailable if that cannot be done now."""

    async def write(self, batch: Sequence[Change]) -> Receipt:
        """
        Take a batch, in order. Never empty.

        Raises PartlyWritten where only the first were taken, SomeFailed where all but some were, else a SinkError.
        """

    async def flush(self) -> None:
        """Make every accepted batch durable."""

    async def close(self) -> None:
        """Let go. May be called twice, and without open."""

    def describe(self) -> Mapping[str, Any]:
        """Say what this is, for people: at least `kind`; never a secret."""


@runtime_checkable
class TransactionalSink(Sink, Protocol):
    """Keeps its position with the data: gets whole transactions in order, all that is held before being durable."""

    def belongs_to(self, subscription: str) -> None:
        """Take the name that the position is kept under; told before `open`."""

    async def position_of(self, stream: Stream) -> Position:
        """Say what `write` has come to: all up to there was written, or held by us. Raises as `open`."""

    async def write_late(self, batch: Sequence[Change]) -> Receipt:
        """Take changes of held keys that are tried again: older than what was written since. Raises as `write`."""


class Observer(Protocol):
    """Told what happened, never asked. Must not raise and must not wait; called from any thread."""

    def captured(self, changes: int, size_bytes: int, lsn: int) -> None:
        """Changes went to the journal."""

    def source_state(self, state: str, detail: str) -> None:
        """The connection to the source is now `connecting`, `streaming`, `waiting` or `stopped`."""

    def slot_held(self, held_bytes: int, safe_bytes: int | None) -> None:
        """PostgreSQL keeps so much WAL for the slot, and gives it up after so much more; None without a limit."""

    def schema_changed(self, change: SchemaChange) -> None:
        """A watched table, or the publication, is not what it was. It is in the journal already."""

    def delivered(self, subscription: str, changes: int, seconds: float, commit_micros: int) -> None:
        """A sink took a batch in `seconds`; its newest change was committed at `commit_micros` (source clock)."""

    def failed(self, subscription: str, error: BaseException, attempt: int, retry_seconds: float | None) -> None:
        """
        A sink failed for every change alike; it is tried again after `retry_seconds`, or not by itself if None.

        What only a key failed on is told by `held`.
        """

    def skipped(self, subscription: str, position: Position, reason: str) -> None:
        """A function asked for nothing to be done about a change."""

    def held(self, subscription: str, key: HeldKey) -> None:
        """A key failed and is held, was tried again in vain, or is parked from now on."""

    def released(self, subscription: str, key_number: int) -> None:
        """A held key owes nothing any more."""

    def subscription_state(self, subscription: str, state: str, detail: str) -> None:
        """A subscription is now `running`, `paused`, `replaying`, `full` (too much is held) or `stopped`."""

    def settled(self, subscription: str, position: Position) -> None:
        """The subscription's cursor moved."""


class Clock(Protocol):
    """Time, so that tests can own it. Monotonic seconds."""

    def now(self) -> float:
        """Return monotonic seconds."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""
