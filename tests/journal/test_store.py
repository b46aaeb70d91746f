"""The file: who may read it, and what is refused."""

import os
import sqlite3

import pytest

from backend_watcher.errors import JournalBroken
from backend_watcher.events.position import START, Position
from backend_watcher.journal import SqliteJournalView
from backend_watcher.journal.store import (
    APPLICATION_ID,
    FORMAT,
    Standing,
    load_cursors,
    load_identity,
    load_notes,
    load_standing,
    open_to_read,
    open_to_write,
    seal_cursor,
    seal_standing,
)


def test_a_new_file_is_empty_and_ours_alone(path):
    umask = os.umask(0)
    try:
        connection = open_to_write(path)
        connection.execute("INSERT INTO note VALUES ('a', 'b')")
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    finally:
        os.umask(umask)
    assert set(modes) >= {path.name, path.name + "-wal"}
    assert set(modes.values()) == {0o600}
    assert load_standing(connection) == Standing()
    assert load_identity(connection) is None
    assert load_cursors(connection) == {}
    assert load_notes(connection) == {"a": "b"}
    assert load_standing(connection).last == START
    connection.close()


def test_a_commit_means_an_fsync(path):
    connection = open_to_write(path)
    pragmas = {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "auto_vacuum", "application_id", "user_version")
    }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "auto_vacuum": 2,
        "application_id": APPLICATION_ID,
        "user_version": FORMAT,
    }
    connection.close()


def test_a_file_of_text_is_refused(path):
    path.write_text("not a database at all, but long enough to be taken for one" * 50)
    before = path.read_bytes()
    for opens in (open_to_write, open_to_read):
        with pytest.raises(JournalBroken, match=r"journal\.db.*not a database") as caught:
            opens(path)
        assert "copy" in caught.value.remedy
    assert path.read_bytes() == before


def test_another_database_is_refused(path):
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE mine (x)")
    other.commit()
    other.close()
    for opens in (open_to_write, open_to_read):
        with pytest.raises(JournalBroken, match="is not a journal"):
            opens(path)


def test_a_newer_format_is_refused(path):
    connection = open_to_write(path)
    connection.execute(f"PRAGMA user_version={FORMAT + 1}")
    connection.close()
    for opens in (open_to_write, open_to_read):
        with pytest.raises(JournalBroken, match=f"format {FORMAT + 1}") as caught:
            opens(path)
        assert "newer version" in caught.value.remedy


def test_a_file_cut_short_is_refused(path):
    connection = open_to_write(path)
    connection.execute("CREATE TABLE filler (x)")
    connection.close()
    with path.open("r+b") as file:
        file.truncate(9000)
    with pytest.raises(JournalBroken, match=r"journal\.db"):
        open_to_write(path)


def test_to_read_needs_a_file_and_makes_none(path):
    with pytest.raises(JournalBroken, match="cannot be read"):
        open_to_read(path)
    assert not path.exists()


def test_to_read_never_writes(path):
    open_to_write(path).close()
    connection = open_to_read(path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("INSERT INTO note VALUES ('a', 'b')")
    connection.close()


def sealed(path):
    """A file with a standing and a cursor, as a writer leaves them."""
    connection = open_to_write(path)
    standing = Standing(durable_lsn=1000, last=Position(900, 3), blocks=2, size_bytes=70)
    numbers = (1000, 900, 3, 2, 70, seal_standing(standing))
    connection.execute(
        "UPDATE standing SET durable_lsn = ?, last_lsn = ?, last_ordinal = ?, blocks = ?, size_bytes = ?, crc = ?",
        numbers,
    )
    cursor = Position(800, 1)
    connection.execute("INSERT INTO cursor VALUES ('a', ?, ?, ?)", (*cursor, seal_cursor("a", cursor)))
    assert load_standing(connection) == standing
    assert load_cursors(connection) == {"a": cursor}
    return connection


@pytest.mark.parametrize("column", ["durable_lsn", "last_lsn", "last_ordinal", "blocks", "size_bytes", "crc"])
@pytest.mark.parametrize("bit", [1, 4096])
def test_a_flipped_bit_of_the_standing_is_found(path, column, bit):
    connection = sealed(path)
    connection.execute(f"UPDATE standing SET {column} = ({column} | {bit}) - ({column} & {bit})")
    with pytest.raises(JournalBroken, match="checksum"):
        load_standing(connection)
    connection.close()


@pytest.mark.parametrize("change", ["lsn = lsn + 64", "ordinal = 0", "subscription = 'b'", "crc = crc + 1"])
def test_a_flipped_bit_of_a_cursor_is_found(path, change):
    connection = sealed(path)
    connection.execute(f"UPDATE cursor SET {change}")
    with pytest.raises(JournalBroken, match="checksum"):
        load_cursors(connection)
    connection.close()


def test_what_an_older_format_left_is_taken_as_it_is(path):
    connection = sealed(path)
    connection.execute("UPDATE standing SET crc = NULL, durable_lsn = 1001")
    connection.execute("UPDATE cursor SET crc = NULL, lsn = 801")
    assert load_standing(connection).durable_lsn == 1001
    assert load_cursors(connection) == {"a": Position(801, 1)}
    connection.execute("ALTER TABLE standing DROP COLUMN crc")
    connection.execute("ALTER TABLE cursor DROP COLUMN crc")
    connection.execute("PRAGMA user_version=2")
    connection.close()
    connection = open_to_read(path)
    assert load_standing(connection).durable_lsn == 1001
    assert load_cursors(connection) == {"a": Position(801, 1)}
    connection.close()
    connection = open_to_write(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (FORMAT,)
    assert load_cursors(connection) == {"a": Position(801, 1)}
    connection.close()


def test_a_damaged_schema_is_refused_even_where_its_words_are_no_text(path):
    open_to_write(path).close()
    data = path.read_bytes()
    path.write_bytes(data.replace(b"DEFAULT", b"DEFAUL\xe5"))
    for opens in (open_to_write, SqliteJournalView):
        with pytest.raises(JournalBroken, match=r"journal\.db"):
            opens(path)
