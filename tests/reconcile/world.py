"""A source, a journal's file and a sink that go on by themselves, one random step at a time, where somebody waits."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from backend_watcher.contracts import HeldChange, HeldKey, JournalState
from backend_watcher.errors import SinkRejected
from backend_watcher.events.change import Change
from backend_watcher.events.chunk import Block
from backend_watcher.events.position import START, Position
from backend_watcher.events.table import Table
from backend_watcher.postgres.reading import Asked, ReadColumn, ReadTable
from backend_watcher.reconcile.digest import hash_of
from backend_watcher.reconcile.source import Rows, SourceTable
from backend_watcher.testing.builders import change, table
from backend_watcher.verifiable import Bound

MAILS = table("public.mails", {"id": "int8", "mail": "text", "n": "int8"}, replica_identity="f")
KEYS = 6
_yield = asyncio.sleep

Row = tuple[str, int]
"""Mail and number; the entry's name is the mail, which rows give to each other."""


@dataclass
class Commit:
    """A transaction in the stream; it may be seen later than it is there."""

    xid: int
    lsn: int
    rows: Mapping[int, Row | None]
    changes: Sequence[Change]
    seen: bool = False


@dataclass
class World:
    """
    Everything that is. `late` lets commits be in the stream before anybody sees them.

    `captured` is how many commits the journal's file has, `delivered` how many the sink has, `cursor` how many of those
    the journal's file says. The sink may be ahead of the file. `rows_in_time` is what one query may sum up.
    """

    dice: random.Random
    late: bool = False
    busy: bool = True
    rows: dict[int, Row] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)
    cache: dict[bytes, bytes] = field(default_factory=dict)
    copy: dict[int, Row] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    captured: int = 0
    delivered: int = 0
    cursor: int = 0
    rows_in_time: int = 1 << 30
    lsn: int = 100
    xid: int = 1

    def step(self) -> None:
        """Let something happen, or nothing."""
        for _ in range(self.dice.choice((0, 1, 1, 2, 5))):
            what = self.dice.random()
            # Less is written than can be delivered, or nothing would ever come to a place.
            if what < 0.15:
                if self.busy:
                    self.write()
            elif what < 0.3:
                self.see()
            elif what < 0.6:
                self.deliver()
            elif what < 0.85:
                self.captured = min(self.captured + 1, len(self.commits))
            else:
                self.cursor = min(self.delivered, self.captured)

    async def pass_time(self, _: float = 0) -> None:
        """Stand in for asyncio's own: nobody waits in vain."""
        self.step()
        await _yield(0)

    # The application

    def write(self) -> None:
        """Commit a transaction: set, delete, or give a mail from one row to another."""
        locked = {key for one in self.commits if not one.seen for key in one.rows}
        free = [key for key in range(KEYS) if key not in locked]
        if not free or (self.late and len(free) < 2):
            return
        self.lsn += 10
        self.xid += 1
        key = self.dice.choice(free)
        taken = {mail for mail, _ in self.rows.values()}
        taken |= {row[0] for one in self.commits if not one.seen for row in one.rows.values() if row is not None}
        if key in self.rows and self.dice.random() < 0.3:
            after: dict[int, Row | None] = {key: None}
        elif key in self.rows and self.dice.random() < 0.4 and len(there := [k for k in free if k in self.rows]) > 1:
            one, other = self.dice.sample(there, 2)
            (a, n), (b, m) = self.rows[one], self.rows[other]
            after = {one: (b, n), other: (a, m)}
        else:
            mails = [f"mail{n}" for n in range(KEYS + 2) if f"mail{n}" not in taken]
            if not mails:
                return
            mine = self.rows.get(key)
            mail = mine[0] if mine is not None and self.dice.random() < 0.6 else self.dice.choice(mails)
            after = {key: (mail, self.lsn)}
        made = [self._change(number, key, self.rows.get(key), row) for number, (key, row) in enumerate(after.items())]
        one = Commit(self.xid, self.lsn, after, made)
        self.commits.append(one)
        if self.late and self.dice.random() < 0.5:
            self.open.add(one.xid)
        else:
            self._show(one)

    def _change(self, number: int, key: int, old: Row | None, new: Row | None) -> Change:
        def values(row: Row) -> dict[str, object]:
            return {"id": key, "mail": row[0], "n": row[1]}

        if new is None:
            assert old is not None
            return change("delete", MAILS, old=values(old), lsn=self.lsn, ordinal=number)
        if old is None:
            return change("insert", MAILS, new=values(new), lsn=self.lsn, ordinal=number)
        return change("update", MAILS, new=values(new), old=values(old), lsn=self.lsn, ordinal=number)

    def see(self) -> None:
        """Let a commit be seen that was only in the stream."""
        unseen = [one for one in self.commits if not one.seen]
        if unseen:
            self._show(self.dice.choice(unseen))

    def _show(self, one: Commit) -> None:
        one.seen = True
        self.open.discard(one.xid)
        for key, row in one.rows.items():
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row

    def deliver(self) -> None:
        """Let the sink have the next commit, before or after the journal's file has it."""
        if self.delivered == len(self.commits):
            return
        one = self.commits[self.delivered]
        self.delivered += 1
        for made in one.changes:
            if made.old is not None:
                self.cache.pop(name_of(made.old["mail"]), None)
        for made in one.changes:
            if made.new is not None:
                self.cache[name_of(made.new["mail"])] = value_of(made)
        for key, row in one.rows.items():
            if row is None:
                self.copy.pop(key, None)
            else:
                self.copy[key] = row

    def settle(self) -> None:
        """Let everything come to its end."""
        while any(not one.seen for one in self.commits):
            self.see()
        while self.delivered < len(self.commits):
            self.deliver()
        self.captured = self.cursor = self.delivered

    # The journal's file

    def state(self) -> JournalState:
        kept = self.commits[: self.captured]
        first = Position(kept[0].lsn, 0) if kept else None
        last = Position(kept[-1].lsn, len(kept[-1].changes) - 1) if kept else None
        # Where it has all, it has what comes before the next commit too.
        durable = self.commits[self.captured].lsn if self.captured < len(self.commits) else self.lsn + 1
        return JournalState(first, last, durable, len(kept), 0, None, False)

    def cursors(self) -> Mapping[str, Position]:
        if not self.cursor:
            return {"mails": START}
        one = self.commits[self.cursor - 1]
        return {"mails": Position(one.lsn, len(one.changes) - 1)}

    def held_keys(self, _: str) -> Sequence[HeldKey]:
        return ()

    def held_changes(
        self, subscription: str, key_number: int | None = None, *, after: int = -1, limit: int = 1000
    ) -> Sequence[HeldChange]:
        return ()

    def read(self, after: Position, _: int) -> Sequence[Block]:
        changes = [c for one in self.commits[: self.captured] for c in one.changes if c.position > after]
        if not changes:
            return []
        return [Block(changes[0].position, changes[-1].position, changes, frozenset({"public.mails"}), 0)]


class WorldSource:
    """What `Source` is, asked of a world. Each question takes its time."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def mark(self) -> int:
        await self._world.pass_time()
        self._world.lsn += 10
        return self._world.lsn

    async def table(self, _: str) -> SourceTable:
        columns = tuple(ReadColumn(c.name, c.type_oid, -1, True) for c in MAILS.columns)
        read = ReadTable(16384, "public", "mails", "r", "f", columns, ("id",), None, (), 0)
        return SourceTable(None, read, MAILS)  # type: ignore[arg-type]

    async def running(self) -> frozenset[int]:
        await self._world.pass_time()
        return frozenset(self._world.open)

    async def not_committing(self, _: frozenset[int]) -> frozenset[int]:
        await self._world.pass_time()
        return frozenset()

    async def read(self, _: SourceTable, asked: Asked, after: Sequence[str], size: int) -> Rows:
        world = self._world
        await world.pass_time()
        keys = sorted(world.rows) if asked.where is None else []
        if asked.keys:
            keys = [key for key in keys if (str(key),) in asked.keys]
        keys = [key for key in keys if _within(key, tuple(after), asked.upto)]
        chosen = keys[:size]
        rows = [
            change("read", MAILS, new={"id": key, "mail": world.rows[key][0], "n": world.rows[key][1]}, lsn=1)
            for key in chosen
        ]
        snapshot = f"1:{world.xid + 1}:{','.join(map(str, sorted(world.open)))}"
        end = (str(chosen[-1]),) if chosen else tuple(after)
        await world.pass_time()
        return Rows(rows, snapshot, len(keys) > size, end)

    async def digest_way(self, _: SourceTable) -> str:
        return "sum of hashes"

    async def digests(
        self, _: SourceTable, after: Bound, count: int, part_rows: int
    ) -> list[tuple[int, int, Bound]] | None:
        world = self._world
        await world.pass_time()
        if count > world.rows_in_time:
            return None
        keys = sorted(key for key in world.rows if _within(key, after, ()))[:count]
        parts = [keys[at : at + part_rows] for at in range(0, len(keys), part_rows)]
        found = [(*_sum(world.rows, part), (str(part[-1]),) if len(part) == part_rows else ()) for part in parts]
        await world.pass_time()
        return found


class WorldSink:
    """A cache by mail."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def open_to_read(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def scope(self, _: Table) -> str:
        return "mails"

    async def entries(self, changes: Sequence[Change]) -> Sequence[tuple[bytes, bytes | None] | SinkRejected]:
        await self._world.pass_time()
        return [(name_of(made.row["mail"]), value_of(made)) for made in changes]

    def touches(self, made: Change) -> Sequence[bytes]:
        return [name_of(row["mail"]) for row in (made.new, made.old) if row is not None]

    async def held(self, _: Table, names: Sequence[bytes]) -> Sequence[bytes | None]:
        await self._world.pass_time()
        found = [self._world.cache.get(name) for name in names]
        await self._world.pass_time()
        return found

    async def names_after(self, _: Table, cursor: bytes) -> tuple[Sequence[bytes], bytes]:
        await self._world.pass_time()
        names = sorted(self._world.cache)
        part = [name for name in names if name > cursor][:3]
        return part, part[-1] if len(part) == 3 else b""

    def extras_unknown(self) -> str:
        return ""


class WorldReplica(WorldSink):
    """A copy of the rows, that can sum them up."""

    async def entries(self, changes: Sequence[Change]) -> Sequence[tuple[bytes, bytes | None] | SinkRejected]:
        await self._world.pass_time()
        return [(_key_name(made.row["id"]), _row_value((made.row["mail"], made.row["n"]))) for made in changes]

    def touches(self, made: Change) -> Sequence[bytes]:
        return [_key_name(row["id"]) for row in (made.new, made.old) if row is not None]

    async def held(self, _: Table, names: Sequence[bytes]) -> Sequence[bytes | None]:
        copy = self._world.copy
        await self._world.pass_time()
        found = [_row_value(row) if (row := copy.get(int(json.loads(name)[0]))) else None for name in names]
        await self._world.pass_time()
        return found

    async def digest_way(self, table: Table, key: Sequence[str]) -> str:
        return "sum of hashes"

    async def digests(self, table: Table, key: Sequence[str], bounds: Sequence[Bound]) -> Sequence[tuple[int, int]]:
        copy = self._world.copy
        await self._world.pass_time()
        found = [_sum(copy, [k for k in copy if _within(k, low, high)]) for low, high in pairwise(bounds)]
        await self._world.pass_time()
        return found if sum(rows for rows, _ in found) <= self._world.rows_in_time else ()

    async def names_between(
        self, table: Table, key: Sequence[str], low: Bound, high: Bound
    ) -> tuple[Sequence[tuple[bytes, Bound]], Bound]:
        await self._world.pass_time()
        keys = sorted(key for key in self._world.copy if _within(key, low, high))
        names = [(_key_name(key), (str(key),)) for key in keys[:2]]
        return names, names[1][1] if len(keys) > 2 else ()


def _within(key: int, low: Bound, high: Bound) -> bool:
    return (not low or key > int(low[0])) and (not high or key <= int(high[0]))


def _sum(rows: Mapping[int, Row], keys: Sequence[int]) -> tuple[int, int]:
    return len(keys), sum(hash_of(b"%d" % key, _row_value(rows[key])) for key in keys)


def _key_name(key: int) -> bytes:
    return json.dumps([str(key)]).encode()


def _row_value(row: Row) -> bytes:
    return json.dumps({"mail": row[0], "n": row[1]}).encode()


def name_of(mail: str) -> bytes:
    return b"m:" + mail.encode()


def value_of(made: Change) -> bytes:
    return json.dumps({"id": made.row["id"], "n": made.row["n"]}).encode()


@contextmanager
def owned_time(world: World) -> Iterator[None]:
    """Let the world go on wherever somebody waits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "sleep", world.pass_time)
        yield


def world_of(seed: int, *, late: bool, busy: bool = True) -> World:
    """A world with a past."""
    world = World(random.Random(seed), late=late)
    for _ in range(30):
        world.write()
    world.settle()
    for _ in range(10):
        world.step()
    world.busy = busy
    return world
