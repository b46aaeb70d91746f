"""What travels in bulk: a chunk of captured messages on its way in, a block of changes on its way out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend_watcher.events.change import Change
from backend_watcher.events.position import Position
from backend_watcher.events.table import Table


@dataclass(frozen=True, slots=True)
class Chunk:
    """
    A run of captured messages that can be decoded by itself, given its tables.

    `first` and `last` are the positions of its first and last change. `commit_end_lsn` is the end of the last
    commit it holds, 0 if it holds none: everything before that LSN is in this chunk or an earlier one.
    """

    payload: bytes
    first: Position
    last: Position
    commit_end_lsn: int
    changes: int
    tables: tuple[Table, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A run of consecutive changes as the journal returns them; shared by all readers, so never changed."""

    first: Position
    last: Position
    changes: Sequence[Change]
    tables: frozenset[str]
    size_bytes: int
