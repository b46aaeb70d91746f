"""
The one thread that writes: a group, one transaction, one fsync; then it says so.

After a failed write nothing is tried again: the system may have dropped the pages it could not write, so a
second fsync that succeeds proves nothing. What was said to be durable is; nothing more is accepted. The one
exception is a full disk, which says no before anything is synced: the group waits for room, and capture with it.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from backend_watcher import probes
from backend_watcher.contracts import Identity
from backend_watcher.errors import JournalBroken
from backend_watcher.events.position import Position
from backend_watcher.events.table import Table
from backend_watcher.journal import held
from backend_watcher.journal.block import Stored, pack_versions
from backend_watcher.journal.intake import Group, Intake, keep
from backend_watcher.journal.listeners import Listeners
from backend_watcher.journal.retention import Retention, doomed
from backend_watcher.journal.space import Space
from backend_watcher.journal.store import Standing, load_oldest, seal_cursor, seal_standing
from backend_watcher.journal.tail import Tail

IDLE_SECONDS = 5.0
"""How often retention looks at the clock when nothing comes."""

FULL_SECONDS = 1.0
"""How often a full disk is tried again."""

TRIM_BLOCKS = 256
"""Blocks forgotten in one group at most, or twice what it adds."""

_INSERT = """
    INSERT INTO block (first_lsn, first_ordinal, last_lsn, last_ordinal, commit_end_lsn, changes, size_bytes,
                       captured_at, versions, crc, payload)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""

_STAND = """
    UPDATE standing SET durable_lsn = ?, last_lsn = ?, last_ordinal = ?, blocks = ?, size_bytes = ?, is_full = ?,
                        crc = ?"""

_OLDEST = "SELECT last_lsn, last_ordinal, size_bytes, captured_at, number FROM block ORDER BY number LIMIT ?"

_REMEDY = (
    "Free space on the disk that holds it, or replace the disk, then start again: "
    "what was confirmed is kept, and PostgreSQL sends the rest again."
)

_log = logging.getLogger(__name__)


class Writer:
    """Owns the writing connection from `start` to `join`."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        intake: Intake,
        tail: Tail,
        tables: dict[int, Table],
        rule: Retention,
        now: Callable[[], float],
        listeners: Listeners,
        news: Listeners,
        standing: Standing,
        identity: Identity | None,
        notes: dict[str, str],
        check_owner: Callable[[], None],
    ) -> None:
        self._path = path
        self._connection = connection
        self._intake = intake
        self._tail = tail
        self._tables = tables
        self._rule = rule
        self._now = now
        self._listeners = listeners
        self._news = news
        self._check_owner = check_owner
        self._shapes = _shapes(connection)
        self._space = Space(connection)
        self._more_to_trim = False
        self._trimmed: Position | None = None
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        self.standing = standing
        self.identity = identity
        self.notes = notes

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the thread's end, which `Intake.stop` asks for."""
        self._thread.join()

    def _run(self) -> None:
        while (group := self._intake.take(IDLE_SECONDS)) is not None:
            try:
                standing, blocks = self._write_when_there_is_room(group)
                self._publish(group, standing, blocks)
                self._tidy()
            except Exception as error:  # noqa: BLE001 whatever it was, going on would not be safe
                self._break(group, error)
                return

    def _write_when_there_is_room(self, group: Group) -> tuple[Standing, list[Stored]]:
        """Write a group, again and again while the disk is full; raises what went wrong otherwise, or at the end."""
        waited = False
        while True:
            try:
                written = self._write(group)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_FULL or not self._intake.wait_for_disk(FULL_SECONDS):
                    raise
                self._give_up()
                if not waited:
                    _log.error("the journal's disk is full; capture waits for room", extra={"path": str(self._path)})
                waited = True
            else:
                if waited:
                    _log.warning("the journal's disk has room again", extra={"path": str(self._path)})
                return written

    def _give_up(self) -> None:
        """Be as before the transaction."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._shapes = _shapes(self._connection)
        self._trimmed = None

    def close(self) -> None:
        """Let go of the file, after `join`."""
        self._connection.close()

    def _write(self, group: Group) -> tuple[Standing, list[Stored]]:
        """Make a group durable in one transaction; return where the journal stands then."""
        execute = self._connection.execute
        blocks = group.blocks
        execute("BEGIN IMMEDIATE")
        # Behind SQLite's own lock: nobody can write between this and our commit.
        self._check_owner()
        probes.reach("journal.before_insert")
        self._insert(group, blocks)
        standing = self._add(group, blocks)
        standing = self._trim(group, standing)
        standing = replace(standing, is_full=self._intake.full)
        if standing == self.standing and not (group.cursors or group.actions or group.notes or group.identity):
            execute("ROLLBACK")
            return standing, blocks
        execute(
            _STAND,
            (
                standing.durable_lsn,
                *standing.last,
                standing.blocks,
                standing.size_bytes,
                standing.is_full,
                seal_standing(standing),
            ),
        )
        probes.reach("journal.before_commit")
        execute("COMMIT")
        probes.reach("journal.after_commit")
        return standing, blocks

    def _insert(self, group: Group, blocks: list[Stored]) -> None:
        connection = self._connection
        for chunk in group.chunks:
            self._insert_shapes(chunk.tables)
        connection.executemany(_INSERT, map(_row, blocks))
        for action in group.actions:
            if isinstance(action, held.Hold):
                self._insert_shapes(kept.table for kept in action.changes)
            held.write(connection, action)
        for name, position in group.cursors.items():
            if position is None:
                connection.execute("DELETE FROM cursor WHERE subscription = ?", (name,))
            else:
                crc = seal_cursor(name, position)
                connection.execute("INSERT OR REPLACE INTO cursor VALUES (?, ?, ?, ?)", (name, *position, crc))
        for name, text in group.notes.items():
            if text is None:
                connection.execute("DELETE FROM note WHERE name = ?", (name,))
            else:
                connection.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (name, text))
        if (one := group.identity) is not None:
            connection.execute(
                "UPDATE standing SET system_identifier = ?, timeline = ?, slot = ?, publication = ?",
                (one.system_identifier, one.timeline, one.slot, one.publication),
            )

    def _insert_shapes(self, tables: Iterable[Table]) -> None:
        for table in tables:
            if table.version not in self._shapes:
                self._connection.execute("INSERT OR IGNORE INTO shape VALUES (?, ?)", (table.version, table.dump()))
                self._shapes.add(table.version)

    def _add(self, group: Group, blocks: list[Stored]) -> Standing:
        old = self.standing
        lsn = max(old.durable_lsn, group.lsn)
        if not blocks:
            return replace(old, durable_lsn=lsn)
        return replace(
            old,
            durable_lsn=lsn,
            last=blocks[-1].last,
            blocks=old.blocks + len(blocks),
            size_bytes=old.size_bytes + group.size_bytes,
            first=blocks[0].first if old.first is None else old.first,
            oldest_time=blocks[0].captured_at if old.first is None else old.oldest_time,
        )

    def _trim(self, group: Group, standing: Standing) -> Standing:
        """Forget the oldest blocks as retention says."""
        most = max(TRIM_BLOCKS, 2 * len(group.chunks))
        seen: list[tuple[Position, int]] = []

        def oldest() -> Iterator[tuple[Position, int, float]]:
            for lsn, ordinal, size_bytes, captured_at, number in self._connection.execute(_OLDEST, (most,)):
                seen.append((Position(lsn, ordinal), number))
                yield seen[-1][0], size_bytes, captured_at

        count, freed = doomed(oldest(), standing.size_bytes, self._rule, group.pressure, self._now())
        self._more_to_trim = count == most
        if not count:
            return standing
        self._trimmed, number = seen[count - 1]
        self._connection.execute("DELETE FROM block WHERE number <= ?", (number,))
        first, oldest_time = load_oldest(self._connection)
        return replace(
            standing,
            blocks=standing.blocks - count,
            size_bytes=standing.size_bytes - freed,
            first=first,
            oldest_time=oldest_time,
        )

    def _publish(self, group: Group, standing: Standing, blocks: list[Stored]) -> None:
        """Say that a group is durable."""
        keep(self.notes, group.notes)
        self.identity = group.identity or self.identity
        if self._trimmed is not None:
            self._tail.forget(self._trimmed)
            self._space.freed()
            self._trimmed = None
        before, self.standing = self.standing, standing
        self._intake.settle(group, standing.size_bytes)
        self._listeners.tell()
        if self._tail.floor > before.last:
            # So much came at once that memory let go of some of it before it was durable: it can be read only now.
            self._news.tell()
        group.tell()
        self._space.wrote(len(blocks), group.size_bytes, sum(map(held.rows_of, group.actions)))
        if self._more_to_trim or self._intake.full != standing.is_full:
            self._intake.nudge()

    def _tidy(self) -> None:
        try:
            more = self._space.tidy()
        except sqlite3.OperationalError as error:
            # A checkpoint on a full disk: everything is in the WAL, and it is tried again after the next group.
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            return
        if more:
            self._intake.nudge()

    def _break(self, group: Group, error: Exception) -> None:
        """Accept nothing more; what was durable stays so."""
        remedy = error.remedy if isinstance(error, JournalBroken) else _REMEDY
        broken = JournalBroken(f"{self._path} could not be written: {error}", remedy=remedy)
        broken.__cause__ = error
        _log.error("journal cannot be written; nothing more is accepted", extra={"path": str(self._path)})
        # In this order: who hears of the failure no longer reads what will never be durable.
        self._intake.refuse(broken)
        self._tail.withdraw(self.standing.last)
        self._intake.fail(group, broken)
        # Closing gives up the open transaction.
        self._connection.close()


def _shapes(connection: sqlite3.Connection) -> set[int]:
    return {row[0] for row in connection.execute("SELECT version FROM shape")}


def _row(stored: Stored) -> tuple[object, ...]:
    return (
        *stored.first,
        *stored.last,
        stored.commit_end_lsn,
        stored.changes,
        len(stored.payload),
        stored.captured_at,
        pack_versions(stored.versions),
        stored.crc,
        stored.payload,
    )
