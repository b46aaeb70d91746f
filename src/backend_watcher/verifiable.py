"""
What a sink promises that can be proved: it says what it should hold, and can be read back.

An *entry* has a name and a value, both bytes. Names are the sink's own: a cache's key, a replica's key columns. A value
is a JSON object, written the same way whether it is what should stand there or what does, so that entries are compared
as bytes, and one field of them can be shown or left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from backend_watcher.errors import SinkRejected
from backend_watcher.events.change import Change
from backend_watcher.events.position import Position
from backend_watcher.events.table import Table

EXPIRED = b""
"""What `held` says where nothing stands any more, and that is as it should be: its time is over."""

Name = bytes
Value = bytes

Bound = tuple[str, ...]
"""A key of the source's table as texts; () for below all of them, or above."""


@runtime_checkable
class Verifiable(Protocol):
    """A sink that can be read back. Nothing here writes; `open_to_read` comes first, `close` last."""

    async def open_to_read(self) -> None:
        """Connect. Raises as `Sink.open`."""
        ...

    async def close(self) -> None:
        """Let go. May be called twice."""
        ...

    def scope(self, table: Table) -> str:
        """Say which tables have their entries in one space of names: those of which this is equal."""
        ...

    async def entries(self, changes: Sequence[Change]) -> Sequence[tuple[Name, Value | None] | SinkRejected]:
        """
        Say what should be held of rows that exist: for each its name, and its value or None for nothing.

        They are of one table and have passed the subscription's transforms. Where `write` would refuse one, that is
        what is said of it. The other side may be asked how it would write a value. Raises SinkError.
        """
        ...

    def touches(self, change: Change) -> Sequence[Name]:
        """Name every entry that a change may make, alter or remove. Raises SinkRejected where it cannot."""
        ...

    async def held(self, table: Table, names: Sequence[Name]) -> Sequence[Value | None]:
        """Return what stands under names, in their order: None for nothing, EXPIRED for no more. Raises SinkError."""
        ...

    async def names_after(self, table: Table, cursor: bytes) -> tuple[Sequence[Name], bytes]:
        """
        Return some names that are held of a table's scope, and what to ask for the next ones with.

        It begins with b"" and has ended where b"" is returned. A name that is held all the time comes at least once.
        """
        ...

    def extras_unknown(self) -> str:
        """Say why entries without a row may stand there all the same; "" where none may."""
        ...


@runtime_checkable
class Digesting(Verifiable, Protocol):
    """
    A sink that holds rows as the source does, and can sum them up itself, so that equal ones need not be read.

    The digest of a row is 64 bits made of all its columns; of rows, how many they are and the sum. Ranges are above one
    key and up to another, in the order of the columns of `key`. Raises SinkError.
    """

    async def digest_way(self, table: Table, key: Sequence[str]) -> str:
        """Return what the source has to say of itself so that both make the same digests; "" where it cannot."""
        ...

    async def digests(self, table: Table, key: Sequence[str], bounds: Sequence[Bound]) -> Sequence[tuple[int, int]]:
        """
        Return rows and sum of what lies between each two neighbours of bounds.

        Returns nothing where that would take too long: ask for fewer ranges.
        """
        ...

    async def names_between(
        self, table: Table, key: Sequence[str], low: Bound, high: Bound
    ) -> tuple[Sequence[tuple[Name, Bound]], Bound]:
        """Return some names in a range with their keys, and above which to ask for the next ones, () after the last."""
        ...


@runtime_checkable
class Repairable(Protocol):
    """A sink that says which row an entry would be of, though there is none: a delete of that can be delivered."""

    def keys_of(self, table: Table, names: Sequence[Name]) -> Sequence[Mapping[str, str] | str]:
        """Return, for each name, the texts of the row's primary key by column; or why that cannot be said."""
        ...


@runtime_checkable
class Dated(Protocol):
    """A verifiable sink that keeps, beside each entry, the place of the change that wrote it."""

    async def written_by(self, table: Table, names: Sequence[Name]) -> Sequence[Position | None] | None:
        """
        Return, for each name, the place of the change that wrote or removed the entry last, None where it has none.

        None in place of all says that this one does not keep them. Raises SinkError.
        """
        ...


class ProofObserver(Protocol):
    """What an Observer is told of sinks that are read back: never asked; must not raise and must not wait."""

    def read_back(self, subscription: str, within_seconds: float, visible: int, missed: int) -> None:
        """Delivered changes were looked at in the sink: so many were visible so long after their commits, or not."""
        ...

    def drift(self, subscription: str, table: str, kind: str, persists: bool) -> None:
        """An entry differs from the source (`kind` says how), and stays so; or, with False, no longer does."""
        ...

    def verified(self, subscription: str, verdict: str, detail: str) -> None:
        """All tables of a subscription were compared with its sink."""
        ...
