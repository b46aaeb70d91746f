"""
The stored form of a chunk, and how it becomes a block of changes again.

The checksum covers the payload and everything said about it, so that a flipped bit in a position is found
like one in a row. Blocks of the format `schema.sql` names stay readable for ever.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from backend_watcher.contracts import Identity
from backend_watcher.decode.chunks import expand
from backend_watcher.errors import JournalBroken, WrongCluster
from backend_watcher.events.chunk import Block, Chunk
from backend_watcher.events.position import Position
from backend_watcher.events.table import Table
from backend_watcher.events.transaction import Stream

UNBOUND = Stream("", "")
"""The stream of a journal that no identity was saved in: only tests and examples have one."""

_HEAD = struct.Struct(">QqQqQQd")


@dataclass(frozen=True, slots=True)
class Stored:
    """One chunk as it is kept. `versions` name the tables it needs, `captured_at` is in seconds since 1970."""

    first: Position
    last: Position
    commit_end_lsn: int
    changes: int
    captured_at: float
    versions: tuple[int, ...]
    crc: int
    payload: bytes


def seal(chunk: Chunk, captured_at: float) -> Stored:
    """Make the stored form of a chunk."""
    versions = tuple(table.version for table in chunk.tables)
    head = _HEAD.pack(*chunk.first, *chunk.last, chunk.commit_end_lsn, chunk.changes, captured_at)
    crc = zlib.crc32(chunk.payload, zlib.crc32(head + pack_versions(versions)))
    return Stored(
        chunk.first, chunk.last, chunk.commit_end_lsn, chunk.changes, captured_at, versions, crc, chunk.payload
    )


def check(stored: Stored, where: str) -> None:
    """Raise JournalBroken, naming the block by its positions, unless it is what was sealed."""
    try:
        head = _HEAD.pack(*stored.first, *stored.last, stored.commit_end_lsn, stored.changes, stored.captured_at)
        crc = zlib.crc32(stored.payload, zlib.crc32(head + pack_versions(stored.versions)))
    except struct.error:
        crc = -1
    if crc != stored.crc:
        raise JournalBroken(f"{where}: block {stored.first} to {stored.last} does not match its checksum")


def decode(stored: Stored, tables: Mapping[int, Table], stream: Stream) -> Block:
    """Return the changes of a stored chunk. `tables` maps versions to tables. Raises JournalBroken."""
    changes = expand(stored.payload, tables, stream)
    if len(changes) != stored.changes:
        raise JournalBroken(
            f"block {stored.first} to {stored.last} holds {len(changes)} changes instead of {stored.changes}"
        )
    names = frozenset(tables[version].full_name for version in stored.versions)
    return Block(stored.first, stored.last, changes, names, len(stored.payload))


def cut(block: Block, after: Position) -> Block:
    """Return the block with only the changes after a position, which must be before its last."""
    if block.first > after:
        return block
    changes = block.changes[bisect_right(block.changes, after, key=lambda change: change.position) :]
    share = block.size_bytes * len(changes) // len(block.changes)
    return Block(changes[0].position, block.last, changes, block.tables, share)


def stream_of(identity: Identity | None) -> Stream:
    """Return the stream that the changes of a journal belong to."""
    return Stream(identity.system_identifier, identity.slot) if identity is not None else UNBOUND


def refuse_other_cluster(known: Identity | None, other: Identity) -> None:
    """Raise WrongCluster where a journal of one cluster would be bound to another: positions would mix."""
    if known is not None and known.system_identifier != other.system_identifier:
        raise WrongCluster(
            f"the journal was written from cluster {known.system_identifier}, not {other.system_identifier}"
        )


def pack_versions(versions: tuple[int, ...]) -> bytes:
    """Write table versions as the stored form holds them: eight bytes each."""
    return struct.pack(f">{len(versions)}Q", *versions)


def unpack_versions(data: bytes) -> tuple[int, ...]:
    """Read what `pack_versions` wrote."""
    return struct.unpack(f">{len(data) // 8}Q", data[: len(data) // 8 * 8])
