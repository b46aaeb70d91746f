"""
A receiver of every protocol version, as plain as can be: which changes came of which transaction.

It keeps what a stream sent until its commit, forgets what an abort undoes, and keeps what is prepared until
that is ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from backend_watcher.decode.pgoutput import (
    Begin,
    Commit,
    Message,
    Prepared,
    Relation,
    RowMessage,
    StreamAbort,
    StreamCommit,
    StreamStart,
    StreamStop,
    Truncate,
    Type,
    decode,
)
from backend_watcher.decode.tables import make_table
from backend_watcher.events.row import Row
from backend_watcher.events.table import Table

KEYS = {"items": ("id",), "whole": (), "indexed": ("id",), "Größe.2": ("b", "a")}


class Told(NamedTuple):
    """One change as it was decoded; `sub` is the subtransaction it was done in, where a stream says so."""

    kind: str
    table: str
    new: dict[str, Any] | None
    old: dict[str, Any] | None
    sub: int | None


def define(relation: Relation) -> Table:
    columns = [(c.name, c.type_oid, c.modifier, c.identity) for c in relation.columns]
    key = KEYS.get(relation.name, ())
    # A column list, or a mutation, may leave the key out.
    fits = {column.name for column in relation.columns}.issuperset(key)
    return make_table(
        relation.relation_oid,
        relation.schema,
        relation.name,
        relation.replica_identity,
        columns,
        key if fits else (),
    )


@dataclass
class Replay:
    """Takes messages in order; `transactions` are those that were committed and changed something."""

    transactions: list[list[Told]] = field(default_factory=list)
    loose: list[tuple[str, bytes]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    types: set[str] = field(default_factory=set)
    _tables: dict[int, Table] = field(default_factory=dict)
    _streamed_tables: dict[int, dict[int, Table]] = field(default_factory=dict)
    _open: list[Told] | None = None
    _streams: dict[int, list[Told]] = field(default_factory=dict)
    _prepared: dict[str, list[Told]] = field(default_factory=dict)
    _stream: int | None = None

    def take(self, data: bytes) -> None:
        message = decode(data, in_stream=self._stream is not None)
        self.seen.add(f"{data[:1].decode()}{len(data) if isinstance(message, StreamAbort) else ''}")
        match message:
            case Begin():
                assert self._open is None
                self._open = []
            case Commit():
                self._end(self._opened())
                self._open = None
            case Relation():
                self._shapes()[message.relation_oid] = define(message)
            case Type():
                self.types.add(f"{message.schema}.{message.name}")
            case Message(transactional=False):
                self.loose.append((message.prefix, message.content))
            case StreamStart() | StreamStop() | StreamCommit() | StreamAbort():
                self._take_stream(message)
            case Prepared():
                self._take_prepared(message)
            case RowMessage() | Truncate() | Message():
                assert (message.xid is None) == (self._stream is None)
                self._opened().extend(self._changes(data, message))

    def _opened(self) -> list[Told]:
        opened = self._open if self._stream is None else self._streams[self._stream]
        assert opened is not None
        return opened

    def _shapes(self) -> dict[int, Table]:
        return self._tables if self._stream is None else self._streamed_tables.setdefault(self._stream, {})

    def _table(self, oid: int) -> Table:
        return self._shapes().get(oid) or self._tables[oid]

    def _changes(self, data: bytes, message: RowMessage | Truncate | Message) -> list[Told]:
        match message:
            case Message():
                return [Told("M", message.prefix, {"content": message.content}, None, message.xid)]
            case Truncate():
                names = sorted(self._table(oid).full_name for oid in message.relation_oids)
                return [Told("T", " ".join(names), None, None, message.xid)]
        table = self._table(message.relation_oid)
        new = Row(table, data, message.new_at, False).to_dict() if message.new_at else None
        old = Row(table, data, message.old_at, message.old_key_only).to_dict() if message.old_at else None
        return [Told(message.kind, table.full_name, new, old, message.xid)]

    def _end(self, changes: list[Told]) -> None:
        if changes:
            self.transactions.append([told._replace(sub=None) for told in changes])

    def _take_stream(self, message: StreamStart | StreamStop | StreamCommit | StreamAbort) -> None:
        match message:
            case StreamStart():
                assert self._stream is None
                self._stream = message.xid
                assert message.first == (message.xid not in self._streams)
                self._streams.setdefault(message.xid, [])
            case StreamStop():
                self._stream = None
            case StreamCommit():
                self._tables |= self._streamed_tables.pop(message.xid, {})
                self._end(self._streams.pop(message.xid))
            case StreamAbort() if message.xid == message.subxid:
                self._streamed_tables.pop(message.xid, None)
                del self._streams[message.xid]
            case StreamAbort():
                kept = [told for told in self._streams[message.xid] if told.sub != message.subxid]
                self._streams[message.xid] = kept

    def _take_prepared(self, message: Prepared) -> None:
        match message.kind:
            case "b":
                self._open = []
            case "P":
                self._prepared[message.gid] = self._opened()
                self._open = None
            case "p":
                self._tables |= self._streamed_tables.pop(message.xid, {})
                self._prepared[message.gid] = self._streams.pop(message.xid)
            case "K":
                self._end(self._prepared.pop(message.gid))
            case "r":
                del self._prepared[message.gid]

    def finish(self) -> None:
        """Nothing may be left open."""
        assert (self._open, self._stream, self._streams, self._prepared) == (None, None, {}, {})


def replay(messages: list[bytes]) -> Replay:
    result = Replay()
    for message in messages:
        result.take(message)
    result.finish()
    return result
