"""A journal's file as another process may look at it: read only, while the writer runs or after it died."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from backend_watcher.contracts import Audit, HeldChange, HeldKey, Identity, JournalState
from backend_watcher.events.chunk import Block
from backend_watcher.events.position import START, Position
from backend_watcher.events.transaction import Stream
from backend_watcher.journal import held
from backend_watcher.journal.block import stream_of
from backend_watcher.journal.reader import Reader
from backend_watcher.journal.store import broken_means, load_cursors, load_identity, load_notes, load_standing

_BEFORE = "SELECT last_lsn, last_ordinal FROM block WHERE captured_at < ? ORDER BY number DESC LIMIT 1"


class SqliteJournalView:
    """
    Looks at the journal in the file `path`. All methods wait for the disk; none writes.

    Raises JournalBroken where the file is missing, or not a journal.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._reader = Reader(self.path, {}, self._get_stream)
        self._stream = stream_of(self.identity())
        self._seen = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()

    def _get_stream(self) -> Stream:
        return self._stream

    def state(self) -> JournalState:
        """Say where the journal stands."""
        with broken_means(self.path, "cannot be read"), self._reader.snapshot() as connection:
            standing = load_standing(connection)
        return standing.state(standing.is_full)

    def identity(self) -> Identity | None:
        """Return which stream the journal was written from."""
        with broken_means(self.path, "cannot be read"), self._reader.snapshot() as connection:
            return load_identity(connection)

    def cursors(self) -> Mapping[str, Position]:
        """Return the cursor of each subscription that has one, as far as it is durable."""
        with broken_means(self.path, "cannot be read"), self._reader.snapshot() as connection:
            return load_cursors(connection)

    def notes(self) -> Mapping[str, str]:
        """Return every note."""
        with broken_means(self.path, "cannot be read"), self._reader.snapshot() as connection:
            return load_notes(connection)

    def held_subscriptions(self) -> Sequence[str]:
        """Return the names of the subscriptions that hold keys."""
        with broken_means(self.path, "cannot be read"), self._reader.snapshot() as connection:
            return held.load_subscriptions(connection)

    def held_keys(self, subscription: str) -> Sequence[HeldKey]:
        """Return every key that a subscription holds."""
        with broken_means(self.path, "cannot be read"), self._reader.snapshot() as connection:
            return held.load_keys(connection, subscription)

    def held_changes(
        self, subscription: str, key_number: int | None = None, *, after: int = -1, limit: int = 1000
    ) -> Sequence[HeldChange]:
        """Return kept changes, in order."""
        stream = stream_of(self.identity())
        with broken_means(self.path, "cannot be read"), self._reader.snapshot() as connection:
            return held.load_changes(connection, stream, subscription, key_number, after, limit)

    def audits(self, *, limit: int = 1000) -> Sequence[Audit]:
        """Return the newest audit entries, oldest first."""
        with broken_means(self.path, "cannot be read"), self._reader.snapshot() as connection:
            return held.load_audits(connection, limit)

    def position_before(self, captured_at: float) -> Position:
        """Return the end of the newest block captured before a moment (seconds since 1970); START if there is none."""
        with broken_means(self.path, "cannot be read"), self._reader.snapshot() as connection:
            row = connection.execute(_BEFORE, (captured_at,)).fetchone()
        return Position(*row) if row is not None else START

    def read(self, after: Position, limit_bytes: int) -> Sequence[Block]:
        """Return blocks after a position, about `limit_bytes` of them; [] if none."""
        self._stream = stream_of(self.identity())
        return self._reader.read(after, limit_bytes)

    def changed(self) -> bool:
        """Say whether anything was written since the last call; True the first time."""
        with broken_means(self.path, "cannot be read"), self._reader.snapshot() as connection:
            (version,) = connection.execute("PRAGMA data_version").fetchone()
        seen, self._seen = self._seen, version
        return bool(seen != version)
