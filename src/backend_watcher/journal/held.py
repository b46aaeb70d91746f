"""
What is kept apart from the blocks: changes of keys that failed, and what people did about them.

An action is noted like a cursor and made durable with the group it gathers in. The SQL is here; in memory the same
actions act on a `Shelf`.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar

from backend_watcher.contracts import Audit, HeldChange, HeldKey
from backend_watcher.decode.tables import load_table
from backend_watcher.errors import JournalBroken
from backend_watcher.events.packed import pack, unpack
from backend_watcher.events.position import Position
from backend_watcher.events.table import Table
from backend_watcher.events.transaction import Stream
from backend_watcher.journal.store import PAGE_BYTES

T = TypeVar("T")

FIRST_FORMAT = 2
"""Journals before this format hold nothing of this."""

_KEYS = """
    SELECT number, table_name, key, keys, attempts, first_at, last_at, due_at, error, remedy,
           (SELECT count(*) FROM held_change c WHERE c.subscription = k.subscription AND c.key_number = k.number)
    FROM held_key k WHERE subscription = ? ORDER BY number"""

_CHANGES = """
    SELECT key_number, number, version, crc, payload FROM held_change
    WHERE subscription = ? AND number > ? {of_key} ORDER BY number LIMIT ?"""


@dataclass(frozen=True, slots=True)
class Kept:
    """A change in the form it is stored in."""

    key_number: int
    number: int
    table: Table
    payload: bytes


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep changes, and note how their key stands."""

    subscription: str
    changes: tuple[Kept, ...]
    key: HeldKey | None


@dataclass(frozen=True, slots=True)
class LetGo:
    """Forget changes."""

    subscription: str
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ForgetKey:
    """Forget a key; its changes go to `into`, if it is given."""

    subscription: str
    number: int
    into: int | None


@dataclass(frozen=True, slots=True)
class ForgetAll:
    """Forget everything of a subscription."""

    subscription: str


Action: TypeAlias = Hold | LetGo | ForgetKey | ForgetAll | Audit


def hold(subscription: str, changes: Sequence[HeldChange], key: HeldKey | None) -> Hold:
    """Make the action that keeps changes."""
    kept = tuple(Kept(one.key_number, one.number, one.change.table, pack(one.change)) for one in changes)
    return Hold(subscription, kept, key)


def write(connection: sqlite3.Connection, action: Action) -> None:
    """Do an action within the transaction that is open. The shapes of its tables are the caller's to write."""
    match action:
        case Hold(name, changes, key):
            connection.executemany(
                "INSERT OR IGNORE INTO held_change VALUES (?, ?, ?, ?, ?, ?)",
                [(name, c.number, c.key_number, c.table.version, zlib.crc32(c.payload), c.payload) for c in changes],
            )
            if key is not None:
                connection.execute(
                    "INSERT OR REPLACE INTO held_key VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _row(name, key)
                )
        case LetGo(name, numbers):
            connection.executemany(
                "DELETE FROM held_change WHERE subscription = ? AND number = ?", [(name, n) for n in numbers]
            )
        case ForgetKey(name, number, into):
            if into is not None:
                connection.execute(
                    "UPDATE held_change SET key_number = ? WHERE subscription = ? AND key_number = ?",
                    (into, name, number),
                )
            connection.execute("DELETE FROM held_key WHERE subscription = ? AND number = ?", (name, number))
        case ForgetAll(name):
            connection.execute("DELETE FROM held_change WHERE subscription = ?", (name,))
            connection.execute("DELETE FROM held_key WHERE subscription = ?", (name,))
        case Audit():
            connection.execute(
                "INSERT INTO audit (at, actor, action, subject, detail) VALUES (?, ?, ?, ?, ?)",
                (action.at, action.actor, action.action, action.subject, action.detail),
            )


def rows_of(action: Action) -> int:
    """Say how many rows an action writes, about: what has to be copied out of the WAL some time."""
    match action:
        case Hold(_, changes, _):
            return len(changes) + sum(len(one.payload) for one in changes) // PAGE_BYTES
        case LetGo(_, numbers):
            return len(numbers)
        case _:
            return 1


def _row(subscription: str, key: HeldKey) -> tuple[object, ...]:
    keys = json.dumps(sorted([table, data.hex(), *last] for (table, data), last in key.keys.items()))
    told = (key.attempts, key.first_at, key.last_at, key.due_at, key.error, key.remedy)
    return (subscription, key.number, key.table, key.key, keys, *told)


def load_keys(connection: sqlite3.Connection, subscription: str) -> list[HeldKey]:
    """Read every held key of a subscription."""
    if not _has(connection):
        return []
    return [_key(row) for row in connection.execute(_KEYS, (subscription,))]


def _key(row: tuple[object, ...]) -> HeldKey:
    number, table, key, keys, *told, changes = row
    recognised = {(name, bytes.fromhex(data)): Position(*last) for name, data, *last in json.loads(str(keys))}
    return HeldKey(number, table, key, recognised, *told, changes)  # type: ignore[arg-type, call-arg]


def load_changes(
    connection: sqlite3.Connection,
    stream: Stream,
    subscription: str,
    key_number: int | None,
    after: int,
    limit: int,
) -> list[HeldChange]:
    """Read kept changes. Raises JournalBroken where one is not what was written."""
    if not _has(connection):
        return []
    of_key = "" if key_number is None else "AND key_number = ?"
    values = (subscription, after, *(() if key_number is None else (key_number,)), limit)
    tables: dict[int, Table] = {}
    result = []
    for key, number, version, crc, payload in connection.execute(_CHANGES.format(of_key=of_key), values):
        if zlib.crc32(payload) != crc:
            raise JournalBroken(f"held change {number} of {subscription!r} does not match its checksum")
        if version not in tables:
            tables[version] = _load_table(connection, version)
        result.append(HeldChange(key, number, unpack(payload, tables[version], stream)))
    return result


def _load_table(connection: sqlite3.Connection, version: int) -> Table:
    row = connection.execute("SELECT dump FROM shape WHERE version = ?", (version,)).fetchone()
    if row is None:
        raise JournalBroken(f"a held change needs table version {version}, which is not in the journal")
    return load_table(row[0])


def load_audits(connection: sqlite3.Connection, limit: int) -> list[Audit]:
    """Read the newest audit entries, oldest first."""
    if not _has(connection):
        return []
    rows = connection.execute(
        "SELECT at, actor, action, subject, detail FROM audit ORDER BY number DESC LIMIT ?", (limit,)
    )
    return [Audit(*row) for row in rows][::-1]


def load_subscriptions(connection: sqlite3.Connection) -> list[str]:
    """Return the names of the subscriptions that hold keys."""
    if not _has(connection):
        return []
    return [row[0] for row in connection.execute("SELECT DISTINCT subscription FROM held_key ORDER BY 1")]


def _has(connection: sqlite3.Connection) -> bool:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return bool(version >= FIRST_FORMAT)


@dataclass(slots=True)
class Shelf:
    """The same, in memory."""

    keys: dict[tuple[str, int], HeldKey] = field(default_factory=dict)
    changes: dict[tuple[str, int], Kept] = field(default_factory=dict)
    audits: list[Audit] = field(default_factory=list)

    def write(self, action: Action) -> None:
        """Do an action."""
        match action:
            case Hold(name, changes, key):
                for kept in changes:
                    self.changes.setdefault((name, kept.number), kept)
                if key is not None:
                    self.keys[name, key.number] = key
            case LetGo(name, numbers):
                for number in numbers:
                    self.changes.pop((name, number), None)
            case ForgetKey(name, number, into):
                self._forget_key(name, number, into)
            case ForgetAll(name):
                _drop(self.keys, lambda place: place[0] == name)
                _drop(self.changes, lambda place: place[0] == name)
            case Audit():
                self.audits.append(action)

    def _forget_key(self, name: str, number: int, into: int | None) -> None:
        if into is not None:
            for place, kept in self.changes.items():
                if place[0] == name and kept.key_number == number:
                    self.changes[place] = replace(kept, key_number=into)
        self.keys.pop((name, number), None)

    def load_keys(self, subscription: str) -> list[HeldKey]:
        """Return every held key of a subscription."""
        numbers = [kept.key_number for (name, _), kept in self.changes.items() if name == subscription]
        held = sorted((number, key) for (name, number), key in self.keys.items() if name == subscription)
        return [replace(key, changes=numbers.count(number)) for number, key in held]

    def load_changes(
        self, stream: Stream, subscription: str, key_number: int | None, after: int, limit: int
    ) -> list[HeldChange]:
        """Return kept changes."""
        chosen = [
            kept
            for (name, number), kept in sorted(self.changes.items(), key=lambda item: item[0])
            if name == subscription and number > after and (key_number is None or kept.key_number == key_number)
        ]
        return [HeldChange(c.key_number, c.number, unpack(c.payload, c.table, stream)) for c in chosen[:limit]]


def _drop(kept: dict[tuple[str, int], T], doomed: Callable[[tuple[str, int]], bool]) -> None:
    for place in [place for place in kept if doomed(place)]:
        del kept[place]
