"""
The judge's mirror: every row that was delivered, as text, in a SQLite file together with the position it came to.

It knows nothing of types, keys or sinks: a table is a multiset of rows, a row is its columns' names with the text the
server sent. Where a table has other columns than before, what is stored keeps the columns that are still there, and
nothing is filled in. What it cannot know it leaves different: that is what the judge counts.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from backend_watcher.events.change import Change, Operation
from backend_watcher.events.position import START, Position
from backend_watcher.events.row import ABSENT, UNCHANGED, Row

SCHEMA = """
PRAGMA journal_mode = wal;
PRAGMA synchronous = off;
CREATE TABLE IF NOT EXISTS shapes (oid INTEGER PRIMARY KEY, name TEXT NOT NULL, columns TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rows (oid INTEGER, digest BLOB, image TEXT NOT NULL, count INTEGER NOT NULL,
                                 PRIMARY KEY (oid, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS place (one INTEGER PRIMARY KEY CHECK (one = 1), lsn TEXT NOT NULL, ordinal INTEGER NOT NULL);
"""
ADD = """
INSERT INTO rows VALUES (?, ?, ?, ?) ON CONFLICT (oid, digest) DO UPDATE SET count = count + excluded.count
"""
DIGEST_BYTES = 16

Image = str
"""A row: JSON of its columns that are not NULL, sorted by name."""


class Seen(NamedTuple):
    """A table as the mirror has it: its newest name, and how often it has each row."""

    name: str
    rows: Mapping[Image, int]


def image_of(columns: Iterable[tuple[str, bytes | None]]) -> Image:
    """Write a row down. Bytes that are no UTF-8 keep their identity."""
    texts = {name: value.decode("utf-8", "surrogateescape") for name, value in columns if value is not None}
    return json.dumps(texts, sort_keys=True, separators=(",", ":"))


def kept(image: Image, columns: Iterable[str]) -> Image:
    """Return a row with only these of its columns."""
    wanted = set(columns)
    texts = {name: text for name, text in json.loads(image).items() if name in wanted}
    return json.dumps(texts, sort_keys=True, separators=(",", ":"))


class Mirror:
    """The file, opened by the one process that writes or reads it."""

    def __init__(self, path: Path | str) -> None:
        # The sink is opened in one thread and used in another, one at a time.
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.executescript(SCHEMA)
        self._columns = {oid: json.loads(text) for oid, text in self._db.execute("SELECT oid, columns FROM shapes")}
        self._pending: Counter[tuple[int, Image]] = Counter()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    @property
    def place(self) -> Position:
        """Everything up to here is applied."""
        row = self._db.execute("SELECT lsn, ordinal FROM place").fetchone()
        return START if row is None else Position(int(row[0]), row[1])

    def apply(self, changes: Sequence[Change]) -> None:
        """Apply what is new of these, in one transaction with the position."""
        place = self.place
        due = [change for change in changes if change.position > place]
        if not due:
            return
        self._db.execute("BEGIN")
        try:
            for change in due:
                self._change(change)
            self._write()
            last = due[-1].position
            self._db.execute("REPLACE INTO place VALUES (1, ?, ?)", (str(last.commit_lsn), last.ordinal))
            self._db.execute("COMMIT")
        except BaseException:
            self._pending.clear()
            self._db.execute("ROLLBACK")
            raise

    def tables(self) -> dict[int, Seen]:
        """Return everything, by OID."""
        rows: dict[int, dict[Image, int]] = {}
        for oid, image, count in self._db.execute("SELECT oid, image, count FROM rows WHERE count <> 0"):
            rows.setdefault(oid, {})[image] = count
        return {oid: Seen(name, rows.get(oid, {})) for oid, name in self._db.execute("SELECT oid, name FROM shapes")}

    def has_row(self, table: str) -> bool:
        """Say whether a table of this name has any row."""
        query = "SELECT EXISTS (SELECT 1 FROM rows JOIN shapes USING (oid) WHERE name = ? AND count > 0)"
        return bool(self._db.execute(query, (table,)).fetchone()[0])

    def _change(self, change: Change) -> None:
        oid = change.table.relation_oid
        self._reshape(change)
        if change.operation is Operation.TRUNCATE:
            self._write()
            self._db.execute("DELETE FROM rows WHERE oid = ?", (oid,))
            return
        old = change.old
        if change.operation in (Operation.UPDATE, Operation.DELETE):
            self._remove(change, old)
        if change.new is not None:
            self._pending[oid, image_of(_texts(change.new, old))] += 1

    def _remove(self, change: Change, old: Row | None) -> None:
        oid = change.table.relation_oid
        if old is not None and all(old.raw(name) is not ABSENT for name in old):
            self._pending[oid, image_of(_texts(old, None))] -= 1
            return
        # No old row was sent but its key: found by the key, among all rows of the table.
        self._write()
        known = old if old is not None else change.row
        key = {name: known.raw(name) for name in change.table.primary_key}
        wanted = {name: text.decode() for name, text in key.items() if isinstance(text, bytes)}
        for image, digest in self._db.execute("SELECT image, digest FROM rows WHERE oid = ? AND count > 0", (oid,)):
            if wanted.items() <= json.loads(image).items():
                self._db.execute("UPDATE rows SET count = count - 1 WHERE oid = ? AND digest = ?", (oid, digest))
                return

    def _reshape(self, change: Change) -> None:
        """Follow the columns and the name a table has now."""
        table = change.table
        columns = [column.name for column in table.columns]
        before = self._columns.get(table.relation_oid)
        if before == columns:
            return
        self._write()
        if before is not None and not set(before) <= set(columns):
            query = "SELECT image, count FROM rows WHERE oid = ?"
            stored = self._db.execute(query, (table.relation_oid,)).fetchall()
            self._db.execute("DELETE FROM rows WHERE oid = ?", (table.relation_oid,))
            for image, count in stored:
                self._pending[table.relation_oid, kept(image, columns)] += count
            self._write()
        self._columns[table.relation_oid] = columns
        shape = (table.relation_oid, table.full_name, json.dumps(columns))
        self._db.execute("REPLACE INTO shapes VALUES (?, ?, ?)", shape)

    def _write(self) -> None:
        rows = [
            (oid, blake2b(image.encode(), digest_size=DIGEST_BYTES).digest(), image, count)
            for (oid, image), count in self._pending.items()
            if count
        ]
        self._db.executemany(ADD, rows)
        self._pending.clear()


def _texts(row: Row, old: Row | None) -> list[tuple[str, Any]]:
    """Return the text of each column; what was not sent again is as it was before."""
    return [(name, old.raw(name) if row.raw(name) is UNCHANGED and old is not None else row.raw(name)) for name in row]
