"""The journal's file: made, opened and checked, and the small things read from it."""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from backend_watcher.contracts import Identity, JournalState
from backend_watcher.errors import JournalBroken
from backend_watcher.events.position import START, Position

APPLICATION_ID = 1112033841
"""`BWJ1`, at a fixed place in the file, by which `file` and we know it."""

FORMAT = 3
"""The newest format this version understands: `schema.sql` makes the first, `upgrade_N.sql` each later one."""

SEALED_FORMAT = 3
"""The first format with checksums of `standing` and `cursor`."""

PAGE_BYTES = 8192
"""Large enough that a payload is few pages, small enough that one change does not write much."""

BUSY_SECONDS = 5.0
"""How long a person's own sqlite3 shell may hold the file before we call it broken."""

_FRESH = "Put back a copy of it, or start with a new journal."


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the journal stands after its newest durable group."""

    durable_lsn: int = 0
    last: Position = START
    blocks: int = 0
    size_bytes: int = 0
    is_full: bool = False
    first: Position | None = None
    oldest_time: float | None = None

    def state(self, is_full: bool) -> JournalState:
        """Say it in the words of the contract."""
        last = self.last if self.last != START else None
        return JournalState(self.first, last, self.durable_lsn, self.blocks, self.size_bytes, self.oldest_time, is_full)


@contextmanager
def broken_means(path: Path, doing: str, remedy: str = _FRESH) -> Iterator[None]:
    """Turn what SQLite and the system say about the file into JournalBroken."""
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
        # The last is what is left of a message of SQLite that quotes a damaged schema.
        raise JournalBroken(f"{path}: {doing}: {error}", remedy=remedy) from error


def open_to_write(path: Path) -> sqlite3.Connection:
    """Open the file for its one writer, and make it if there is none. Raises JournalBroken."""
    with broken_means(path, "cannot be opened as a journal"):
        # Made here because SQLite would make it readable for everybody.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    if _is_empty(connection):
        # Both can be chosen only before the first page is written.
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    else:
        check_format(connection, path)
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    connection.execute("PRAGMA synchronous=FULL")
    # The writer checkpoints by itself, after it has said that a group is durable.
    connection.execute("PRAGMA wal_autocheckpoint=0").fetchall()
    connection.execute(f"PRAGMA journal_size_limit={64 << 20}").fetchall()
    scripts = resources.files(__package__)
    if _is_empty(connection):
        connection.executescript(scripts.joinpath("schema.sql").read_text("utf-8"))
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    for number in range(found + 1, FORMAT + 1):
        connection.executescript(scripts.joinpath(f"upgrade_{number}.sql").read_text("utf-8"))
    # What a process before us wrote but could not fsync is in the WAL too: make it durable before we say it is.
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _is_empty(connection: sqlite3.Connection) -> bool:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return bool(tables == 0)


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open the file without ever writing to it, whether or not somebody writes. Raises JournalBroken."""
    with broken_means(path, "cannot be read"):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            check_format(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def check_format(connection: sqlite3.Connection, path: Path) -> None:
    """Raise JournalBroken unless the file is a journal of a format we understand."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise JournalBroken(f"{path} is not a journal", remedy="Give the journal a file of its own.")
    if found > FORMAT:
        raise JournalBroken(
            f"{path} has format {found}; this version understands {FORMAT} and older",
            remedy="Run the newer version that wrote it.",
        )


def seal_standing(standing: Standing) -> int:
    """Return the checksum of where the journal stands."""
    return zlib.crc32(b"%d %d %d %d %d" % (standing.durable_lsn, *standing.last, standing.blocks, standing.size_bytes))


def seal_cursor(subscription: str, position: Position) -> int:
    """Return the checksum of a cursor."""
    return zlib.crc32(b"%d %d " % position + subscription.encode())


def _crc(connection: sqlite3.Connection) -> str:
    """Return what to select as the checksum; a file that was only read may have an older format."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return "crc" if version >= SEALED_FORMAT else "NULL"


def load_standing(connection: sqlite3.Connection) -> Standing:
    """Read where the journal stands. Raises JournalBroken."""
    lsn, last_lsn, last_ordinal, blocks, size, is_full, crc = connection.execute(
        f"SELECT durable_lsn, last_lsn, last_ordinal, blocks, size_bytes, is_full, {_crc(connection)} FROM standing"  # noqa: S608
    ).fetchone()
    first, oldest_time = load_oldest(connection)
    standing = Standing(lsn, Position(last_lsn, last_ordinal), blocks, size, bool(is_full), first, oldest_time)
    if crc is not None and crc != seal_standing(standing):
        raise JournalBroken("where the journal stands does not match its checksum")
    newest = connection.execute("SELECT last_lsn, last_ordinal FROM block ORDER BY number DESC LIMIT 1").fetchone()
    if newest is not None and Position(*newest) != standing.last:
        # A reader that is before it would find nothing there, and wait.
        raise JournalBroken(f"the newest block ends at {Position(*newest)}, and the journal at {standing.last}")
    return standing


def load_oldest(connection: sqlite3.Connection) -> tuple[Position | None, float | None]:
    """Read where the oldest block begins, and when it was captured."""
    row = connection.execute(
        "SELECT first_lsn, first_ordinal, captured_at FROM block ORDER BY number LIMIT 1"
    ).fetchone()
    return (Position(row[0], row[1]), row[2]) if row is not None else (None, None)


def load_identity(connection: sqlite3.Connection) -> Identity | None:
    """Read which stream the journal was written from."""
    row = connection.execute("SELECT system_identifier, timeline, slot, publication FROM standing").fetchone()
    return Identity(*row) if row[0] is not None else None


def load_cursors(connection: sqlite3.Connection) -> dict[str, Position]:
    """Read every cursor. Raises JournalBroken."""
    query = f"SELECT subscription, lsn, ordinal, {_crc(connection)} FROM cursor ORDER BY subscription"  # noqa: S608
    cursors = {}
    for name, lsn, ordinal, crc in connection.execute(query):
        cursors[name] = Position(lsn, ordinal)
        if crc is not None and crc != seal_cursor(name, cursors[name]):
            raise JournalBroken(f"the cursor of {name!r} does not match its checksum")
    return cursors


def load_notes(connection: sqlite3.Connection) -> dict[str, str]:
    """Read every note."""
    return dict(connection.execute("SELECT name, text FROM note ORDER BY name").fetchall())
