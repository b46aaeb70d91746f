"""
Keeps a Redis or Valkey cache in step: sets what exists, deletes what does not, and never puts older over newer.

Each row is an entry at the key made from a template: a JSON text, or a hash with a field per column. A changed
primary key removes the old entry in the same step as it sets the new one.

**The guard.** Beside each entry `product:7` a string at `@product:7` holds the position of the change that wrote it,
as text that sorts as positions do. One script call a thousand keys reads the positions, drops what is older, and
writes the rest, so redelivery, replay and a second watcher cannot bring an old value back. A deleted entry keeps its
position for `TOMBSTONE_SECONDS`. A truncate raises a floor under all keys of its template, at `@@product:{id}`.
Scripts name keys that they make themselves, which a Redis Cluster does not allow.

**The layout** was measured, 1,000 entries a call on one machine: a string beside each entry, read with one MGET and
written with one MSET, costs the server less than GET and SET for each entry. One hash with all positions could not
expire with its entries, and would have to be cleaned of tombstones.

A large value that an update left alone (TOAST) is not sent again. JSON takes it from the old row, as REPLICA IDENTITY
FULL sends it, or the change is rejected as `toast_unavailable`; a hash keeps the field it has. Null is never made
of it.

The receipt is DURABLE: as durable as the server is configured to be (`appendfsync always` for every write).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from redis.exceptions import ResponseError

from backend_watcher.contracts import Receipt
from backend_watcher.errors import ConfigError, PartlyWritten, SinkRejected
from backend_watcher.events.change import DELETE, INSERT, READ, TRUNCATE, UPDATE, Change
from backend_watcher.events.envelope import Incomplete, RowWriter, writer_of
from backend_watcher.events.position import Position
from backend_watcher.events.row import Missing
from backend_watcher.events.table import Table
from backend_watcher.sinks.redis_wire import Call, RedisServer, command, fields_as_json, pack, sha_of
from backend_watcher.sinks.template import MARK, KeyTemplate
from backend_watcher.verifiable import EXPIRED

TOMBSTONE_SECONDS = 3600
"""How long a deleted entry's position is kept, so that an older value that comes late stays away."""

KEYS_MAX = 1_000
"""Entries in one call: some milliseconds of the server, and what Lua's stack holds (see the scripts)."""


class RedisCache:
    """
    A cache of rows, under keys such as `product:{id}`.

    `expire_seconds` is renewed at each write. `columns` chooses what is kept. `guard=False` leaves the positions out:
    faster, but a redelivered older change is seen until the newer one follows. A truncate deletes all entries of the
    template, or none with `on_truncate="ignore"`; without the guard that is every key that looks like one.
    """

    def __init__(
        self,
        key: str,
        *,
        url: str = "redis://127.0.0.1:6379/0",
        format: Literal["json", "hash"] = "json",  # noqa: A002 the word users look for
        expire_seconds: float | None = None,
        columns: Sequence[str] | None = None,
        guard: bool = True,
        on_truncate: Literal["delete", "ignore"] = "delete",
    ) -> None:
        self._key = KeyTemplate(key)
        self._server = RedisServer("redis_cache", url)
        _check(self._key, format, expire_seconds, columns, on_truncate)
        self._hashes = format == "hash"
        self._expire_seconds = expire_seconds
        self._columns = tuple(columns) if columns is not None else None
        self._guard = guard
        self._deletes_on_truncate = on_truncate == "delete"
        self._floor = MARK + MARK + key.encode()
        self._ttl = b"%d" % max(1, round(expire_seconds * 1000)) if expire_seconds is not None else b"0"
        self._tombstone_ttl = b"%d" % (TOMBSTONE_SECONDS * 1000)

    async def open(self) -> None:
        """Connect and load the scripts. Raises SinkUnavailable, naming the server, if it does not answer."""
        await self._server.open()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._server.close()

    async def flush(self) -> None:
        """Nothing waits: every batch is written when `write` returns."""

    def describe(self) -> Mapping[str, Any]:
        """Say what this is; the password is left out."""
        return {
            "kind": "redis_cache",
            "server": self._server.address,
            "key": self._key.source,
            "format": "hash" if self._hashes else "json",
            "expire_seconds": self._expire_seconds,
            "columns": None if self._columns is None else list(self._columns),
            "guard": self._guard,
            "on_truncate": "delete" if self._deletes_on_truncate else "ignore",
        }

    async def write(self, batch: Sequence[Change]) -> Receipt:
        """Write a batch; of each key only the newest change goes to the server."""
        start = 0
        for index, change in enumerate(batch):
            if change.code == TRUNCATE:
                await self._write_rows(batch, start, index)
                await self._truncate(change)
                start = index + 1
        await self._write_rows(batch, start, len(batch))
        return Receipt.DURABLE

    async def _write_rows(self, batch: Sequence[Change], start: int, end: int) -> None:
        if start == end:
            return
        try:
            if self._hashes:
                await self._write_hashes(batch, start, end)
            else:
                entries = self._fold(batch, start, end)
                calls = self._guarded if self._guard else self._unguarded
                await self._server.run(lambda: calls(batch, entries))
        except _RejectedAt as fault:
            # Everything before the change at fault is written, so that it alone is put aside.
            await self._write_rows(batch, start, fault.index)
            raise PartlyWritten(fault.index, fault.cause) from fault

    # What is written where

    def _fold(self, batch: Sequence[Change], start: int, end: int) -> dict[bytes, int]:
        """Return the index of the newest change of each key, as `~index` where that change took the key away."""
        entries: dict[bytes, int] = {}
        table: Table | None = None
        template = self._key.key
        for index in range(start, end):
            change = batch[index]
            try:
                if change.table is not table:
                    table = change.table
                    writer = self._writer(table)
                    doubt = self._doubt(table)
                if change.code == INSERT or change.code == READ:
                    entries[template(writer, change.new)] = index
                    continue
                if doubt is not None:
                    raise doubt
                if change.code == DELETE:
                    entries[template(writer, change.old)] = ~index
                    continue
                old = change.old
                key = template(writer, change.new, old)
                if old is not None:
                    before = template(writer, old)
                    if before != key:
                        entries[before] = ~index
                entries[key] = index
            except SinkRejected as error:
                raise _RejectedAt(index, error) from error
        return entries

    def _writer(self, table: Table) -> RowWriter:
        for name in self._key.columns:
            if name not in table.index_of:
                raise SinkRejected(
                    f"column_missing: {table.full_name} has no column {name!r}, and the key is made from it",
                    remedy=f"Correct the key {self._key.source!r} of the sink.",
                )
        try:
            return writer_of(table, self._columns)
        except ValueError as error:
            raise SinkRejected(f"column_missing: {error}", remedy="Correct columns=[…] of the sink.") from error

    def _doubt(self, table: Table) -> SinkRejected | None:
        """Say why the key a row had before cannot be known: the server sends the old values of the identity only."""
        for name in self._key.columns:
            if not table.columns[table.index_of[name]].identity:
                return SinkRejected(
                    f"key_unavailable: {table.full_name}.{name} may change without its old value being sent, "
                    f"and the key {self._key.source!r} is made from it",
                    remedy=f"ALTER TABLE {table.full_name} REPLICA IDENTITY FULL, or use the primary key.",
                )
        return None

    def _guarded(self, batch: Sequence[Change], entries: dict[bytes, int]) -> Iterator[Call]:
        """Yield script calls that set and delete entries, each unless something newer is there."""
        places: list[bytes] = []
        arguments: list[bytes] = []
        for key, index, value in self._values(batch, entries):
            change = batch[index]
            place = MARK + key
            places.append(place)
            arguments += (key, value, place, b"%016x%08x" % (change.transaction.commit_lsn, change.ordinal))
            if len(places) == KEYS_MAX:
                yield self._write_json(places, arguments)
                places, arguments = [], []
        if places:
            yield self._write_json(places, arguments)

    def _values(self, batch: Sequence[Change], entries: dict[bytes, int]) -> Iterator[tuple[bytes, int, bytes]]:
        """Yield key, index and JSON of each entry; nothing instead of JSON where it is to be deleted."""
        table: Table | None = None
        index = 0
        try:
            for key, index in entries.items():
                if index < 0:
                    yield key, ~index, b""
                    continue
                change = batch[index]
                if change.table is not table:
                    table = change.table
                    write = self._writer(table).json
                new = change.new
                assert new is not None
                yield key, index, write(new, change.old, True)
        except Incomplete as error:
            raise _RejectedAt(index, _unavailable(batch[index].table, error.column)) from error
        except ValueError as error:
            reason = f"{batch[index].table.full_name}: a value cannot be written as JSON ({type(error).__name__})"
            raise _RejectedAt(index, SinkRejected(reason)) from error

    def _write_json(self, places: list[bytes], arguments: list[bytes]) -> Call:
        count = b"%d" % (len(places) + 1)
        times = (self._ttl, self._tombstone_ttl)
        return command(b"EVALSHA", sha_of("write_json"), count, self._floor, *places, *times, *arguments)

    def _unguarded(self, batch: Sequence[Change], entries: dict[bytes, int]) -> Iterator[Call]:
        """Yield plain commands that set and delete entries."""
        gone = [key for key, index in entries.items() if index < 0]
        for at in range(0, len(gone), KEYS_MAX):
            yield command(b"UNLINK", *gone[at : at + KEYS_MAX])
        pairs: list[bytes] = []
        for key, _, value in self._values(batch, entries):
            if not value:
                continue
            pairs += (key, value)
            if len(pairs) == 2 * KEYS_MAX:
                yield self._set(pairs)
                pairs = []
        if pairs:
            yield self._set(pairs)

    def _set(self, pairs: list[bytes]) -> Call:
        if self._expire_seconds is None:
            return command(b"MSET", *pairs)
        sets = [pack((b"SET", pairs[at], pairs[at + 1], b"PX", self._ttl)) for at in range(0, len(pairs), 2)]
        return b"".join(sets), len(sets)

    # Hashes

    async def _write_hashes(self, batch: Sequence[Change], start: int, end: int) -> None:
        entries: dict[bytes, _Hash] = {}
        for index in range(start, end):
            try:
                self._add_hash(entries, index, batch[index])
            except SinkRejected as error:
                raise _RejectedAt(index, error) from error
        hashes = list(entries.items())
        answers = await self._server.run(lambda: self._hash_calls(hashes))
        refused = [
            (hashes[call * KEYS_MAX + answer[at]][1].first, answer[at + 1])
            for call, answer in enumerate(answers)
            for at in range(0, len(answer), 2)
        ]
        for _, message in refused:
            if not message.startswith(b"WRONGTYPE"):
                raise self._server.translate(ResponseError(message.decode()))
        if refused:
            # All other keys are written, and so is everything before the first change of a refused one.
            first = min(refused)[0]
            reason = (
                f"wrong_type: something else than a hash is kept at the key of a row of {batch[first].table.full_name}"
            )
            raise PartlyWritten(first, SinkRejected(reason, remedy="Delete it, or choose another key for the sink."))

    def _add_hash(self, entries: dict[bytes, _Hash], index: int, change: Change) -> None:
        writer = self._writer(change.table)
        doubt = self._doubt(change.table)
        if doubt is not None and change.code in (UPDATE, DELETE):
            raise doubt
        position = b"%016x%08x" % (change.transaction.commit_lsn, change.ordinal)
        if change.code == DELETE:
            _Hash(index, position, b"gone").put(entries, self._key.key(writer, change.old))
            return
        new, old = change.row, change.old
        key = self._key.key(writer, new, old)
        texts = writer.texts(new, old)
        fields = {name: text for name, text in texts if not isinstance(text, Missing)}
        part = len(fields) < len(texts)
        before = self._key.key(writer, old) if old is not None else key
        if before != key:
            if part:
                # The field stands under the old key only, and that goes.
                lacking = next(name for name, text in texts if isinstance(text, Missing))
                raise _unavailable(change.table, lacking)
            _Hash(index, position, b"gone").put(entries, before)
        _Hash(index, position, b"part" if part else b"whole", fields).put(entries, key)

    def _hash_calls(self, hashes: Sequence[tuple[bytes, _Hash]]) -> Iterator[Call]:
        guard = b"1" if self._guard else b"0"
        head = (b"EVALSHA", sha_of("write_hash"), b"1", self._floor, self._ttl, self._tombstone_ttl, guard)
        for at in range(0, len(hashes), KEYS_MAX):
            arguments: list[bytes] = []
            for key, entry in hashes[at : at + KEYS_MAX]:
                sets: list[bytes] = []
                removes: list[bytes] = []
                for name, text in entry.fields.items():
                    if text is None:
                        removes.append(name.encode())
                    else:
                        sets += (name.encode(), text)
                arguments += (key, entry.position, entry.todo, b"%d" % (len(sets) // 2), b"%d" % len(removes))
                arguments += sets
                arguments += removes
            yield command(*head, *arguments)

    # Reading back

    async def open_to_read(self) -> None:
        """Connect."""
        await self._server.open()

    def scope(self, table: Table) -> str:
        """Return the template: tables that share it share their keys."""
        return self._key.source

    async def entries(self, changes: Sequence[Change]) -> Sequence[tuple[bytes, bytes | None] | SinkRejected]:
        """Say what should stand where; the server need not be asked."""
        found: list[tuple[bytes, bytes | None] | SinkRejected] = []
        for change in changes:
            try:
                found.append(self._entry(change))
            except SinkRejected as error:
                found.append(error)
        return found

    def _entry(self, change: Change) -> tuple[bytes, bytes | None]:
        """Return a row's key, and its JSON or a hash's fields written as JSON; nothing where all of those are NULL."""
        writer, row = self._writer(change.table), change.row
        key = self._key.key(writer, row)
        try:
            if not self._hashes:
                return key, writer.json(row, None, True)
            texts = [(name.encode(), text) for name, text in writer.texts(row) if not isinstance(text, Missing)]
            return key, fields_as_json(texts)
        except ValueError as error:
            raise SinkRejected(
                f"{change.table.full_name}: a value cannot be written ({type(error).__name__})"
            ) from error

    def touches(self, change: Change) -> Sequence[bytes]:
        """Return the key of a row, and the one it had before."""
        writer = self._writer(change.table)
        rows = [row for row in (change.new, change.old) if row is not None]
        return [self._key.key(writer, row, change.old) for row in rows]

    async def held(self, table: Table, names: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return what stands at keys; of a hash only the fields that are ours."""
        values: list[bytes | None] = []
        for at in range(0, len(names), KEYS_MAX):
            some = names[at : at + KEYS_MAX]
            found = await (self._read_hashes(table, some) if self._hashes else self._server.call(b"MGET", *some))
            gone = [number for number, value in enumerate(found) if value is None]
            if gone and self._expire_seconds is not None:
                # Entry and position expire together: an entry that somebody deleted leaves its position behind.
                marks = [MARK + some[number] for number in gone]
                there = await self._server.call(b"MGET", *marks) if self._guard else [None] * len(gone)
                for number, mark in zip(gone, there, strict=True):
                    found[number] = EXPIRED if mark is None else None
            values += found
        return values

    async def _read_hashes(self, table: Table, names: Sequence[bytes]) -> list[bytes | None]:
        count = b"%d" % len(names)
        answers = await self._server.call(b"EVALSHA", sha_of("read_hash"), count, *names)
        ours = {name.encode() for name in (self._columns or table.index_of)}
        return [
            fields_as_json((name, text) for name, text in zip(answer[::2], answer[1::2], strict=True) if name in ours)
            for answer in answers
        ]

    async def written_by(self, table: Table, names: Sequence[bytes]) -> Sequence[Position | None] | None:
        """Return the positions that stand beside entries; what a truncate removed has the truncate's."""
        if not self._guard:
            return None
        found: list[Position | None] = []
        for at in range(0, len(names), KEYS_MAX):
            marks = [MARK + name for name in names[at : at + KEYS_MAX]]
            floor, *places = await self._server.call(b"MGET", self._floor, *marks)
            found += [_position(max(place or b"", floor or b"")) for place in places]
        return found

    async def names_after(self, table: Table, cursor: bytes) -> tuple[Sequence[bytes], bytes]:
        """Return some keys that look as if they were made from the template."""
        command_of = (b"SCAN", cursor or b"0", b"MATCH", self._key.glob(), b"COUNT", b"%d" % KEYS_MAX)
        cursor, found = await self._server.call(*command_of)
        ours = self._key.pattern(table).fullmatch
        return [key for key in found if ours(key) and not key.startswith(MARK)], b"" if cursor == b"0" else cursor

    def keys_of(self, table: Table, names: Sequence[bytes]) -> Sequence[Mapping[str, str] | str]:
        """Read the primary key out of keys, where that is what they are made from."""
        if set(self._key.columns) != set(table.primary_key):
            return [f"{self._key.source!r} is not made from the primary key"] * len(names)
        if (doubt := self._doubt(table)) is not None:
            return [doubt.message] * len(names)
        return [self._key.cells(table, name) or "more than one row may have this key, or none" for name in names]

    def extras_unknown(self) -> str:
        """Say that entries of truncated rows are there on purpose."""
        return "" if self._deletes_on_truncate else "entries stay after a truncate: on_truncate is 'ignore'"

    async def _truncate(self, change: Change) -> None:
        """Delete all entries that are not newer than the truncate, some at a time."""
        if not self._deletes_on_truncate:
            return
        position = b"%016x%08x" % (change.transaction.commit_lsn, change.ordinal)
        mark = MARK if self._guard else b""
        script = (b"EVALSHA", sha_of("truncate"), b"1", self._floor, position)
        if self._guard:
            await self._server.call(*script)
        ours = self._key.pattern(change.table).fullmatch
        cursor = b"0"
        while True:
            wanted = mark + self._key.glob()
            cursor, found = await self._server.call(b"SCAN", cursor, b"MATCH", wanted, b"COUNT", b"%d" % KEYS_MAX)
            keys = [key[len(mark) :] for key in found if ours(key, len(mark))]
            for at in range(0, len(keys), KEYS_MAX):
                some = keys[at : at + KEYS_MAX]
                await self._server.call(*(script if self._guard else (b"UNLINK",)), *some)
            if cursor == b"0":
                return


class _Hash:
    """What becomes of one hash; `first` is the index of the first change in it."""

    __slots__ = ("fields", "first", "position", "todo")

    def __init__(self, first: int, position: bytes, todo: bytes, fields: dict[str, bytes | None] | None = None) -> None:
        self.first = first
        self.position = position
        self.todo = todo
        self.fields = fields if fields is not None else {}

    def put(self, entries: dict[bytes, _Hash], key: bytes) -> None:
        """Take the place of an earlier change of the key, keeping the fields that only it knows."""
        before = entries.get(key)
        if before is not None:
            self.first = before.first
            if self.todo == b"part" and before.todo != b"gone":
                self.fields = before.fields | self.fields
                self.todo = before.todo
        entries[key] = self


class _RejectedAt(Exception):
    """The change at `index` cannot be written."""

    def __init__(self, index: int, cause: SinkRejected) -> None:
        super().__init__(str(cause))
        self.index = index
        self.cause = cause


def _position(mark: bytes) -> Position | None:
    try:
        return Position(int(mark[:16], 16), int(mark[16:], 16))
    except ValueError:
        return None  # there is none, or somebody else wrote it


def _unavailable(table: Table, column: str) -> SinkRejected:
    return SinkRejected(
        f"toast_unavailable: {table.full_name}.{column} was not sent, because the update left it alone",
        remedy=f"ALTER TABLE {table.full_name} REPLICA IDENTITY FULL, or leave the column out with columns=[…].",
    )


def _check(
    key: KeyTemplate, form: str, expire_seconds: float | None, columns: Sequence[str] | None, on_truncate: str
) -> None:
    faults = []
    if form not in ("json", "hash"):
        faults.append(f"format: {form!r} is neither 'json' nor 'hash'")
    if expire_seconds is not None and not expire_seconds > 0:
        faults.append(f"expire_seconds: {expire_seconds!r} is not more than 0; leave it out to keep entries for ever")
    if isinstance(columns, str) or (columns is not None and not columns):
        faults.append("columns: a list of column names is wanted, such as ['id', 'name']")
    if on_truncate not in ("delete", "ignore"):
        faults.append(f"on_truncate: {on_truncate!r} is neither 'delete' nor 'ignore'")
    if on_truncate == "delete" and not key.prefix:
        faults.append(
            f"key: {key.source!r} begins with a column, so a truncate could not tell its entries from other keys; "
            "begin it with a word, or choose on_truncate='ignore'"
        )
    if faults:
        raise ConfigError(faults)
