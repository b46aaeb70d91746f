"""
What may happen to a journal while nobody looks: deleted, cut short, bits flipped, an older copy put back.

Each kind is a function of the journal's path and of dice. `rewrite` changes stored numbers as a flipped bit in the
file would, at the places where it hurts most.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

NEWEST = "WHERE number = (SELECT max(number) FROM block)"

Damage = Callable[[Path, random.Random], None]


def delete_folder(journal: Path, dice: random.Random) -> None:
    shutil.rmtree(journal.parent)


def delete_file(journal: Path, dice: random.Random) -> None:
    journal.unlink()


def empty_file(journal: Path, dice: random.Random) -> None:
    journal.write_bytes(b"")


def truncate(journal: Path, dice: random.Random) -> None:
    data = journal.read_bytes()
    journal.write_bytes(data[: dice.randrange(1, len(data))])


def truncate_pages(journal: Path, dice: random.Random) -> None:
    data = journal.read_bytes()
    journal.write_bytes(data[: dice.randrange(1, max(2, len(data) // 8192)) * 8192])


def other_file(journal: Path, dice: random.Random) -> None:
    journal.write_bytes(dice.randbytes(100_000))


def flip_bit(journal: Path, dice: random.Random) -> None:
    data = bytearray(journal.read_bytes())
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    journal.write_bytes(data)


def flip_in_the_first_pages(journal: Path, dice: random.Random) -> None:
    data = bytearray(journal.read_bytes())
    data[dice.randrange(min(len(data), 10 * 8192))] ^= 1 << dice.randrange(8)
    journal.write_bytes(data)


def older_copy(journal: Path, dice: random.Random) -> None:
    shutil.copyfile(journal.with_name("yesterday"), journal)


def rewrite(statement: str) -> Damage:
    """Return the damage of a statement; `{bit}` is a power of two."""

    def damage(journal: Path, dice: random.Random) -> None:
        with sqlite3.connect(journal) as connection:
            connection.execute(statement.format(bit=1 << dice.randrange(8, 20)))
        connection.close()

    return damage


DAMAGES: dict[str, Damage] = {
    "folder deleted": delete_folder,
    "file deleted": delete_file,
    "file empty": empty_file,
    "truncated": truncate,
    "truncated at a page": truncate_pages,
    "another file": other_file,
    "older copy": older_copy,
    "durable_lsn": rewrite("UPDATE standing SET durable_lsn = (durable_lsn | {bit}) - (durable_lsn & {bit})"),
    "last_lsn": rewrite("UPDATE standing SET last_lsn = (last_lsn | {bit}) - (last_lsn & {bit})"),
    "cursor": rewrite("UPDATE cursor SET lsn = (lsn | {bit}) - (lsn & {bit})"),
    "block position": rewrite(
        "UPDATE block SET last_lsn = (last_lsn | {bit}) - (last_lsn & {bit})"
        " WHERE number = (SELECT max(number) FROM block)"
    ),
    "payload": rewrite(
        "UPDATE block SET payload = zeroblob(length(payload)) WHERE number = (SELECT max(number) FROM block)"
    ),
    "bit": flip_bit,
    "bit in the first pages": flip_in_the_first_pages,
}
