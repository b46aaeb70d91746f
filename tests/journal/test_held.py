"""What is kept apart: older journals have none of it, flipped bits are found, the audit cannot be changed."""

from __future__ import annotations

import sqlite3
from importlib import resources
from pathlib import Path

import pytest

from backend_watcher.contracts import Audit, HeldChange
from backend_watcher.errors import JournalBroken
from backend_watcher.journal.sqlite import SqliteJournal
from backend_watcher.journal.view import SqliteJournalView
from backend_watcher.testing import builders
from backend_watcher.testing.conformance_held import KEY

CHANGE = HeldChange(1, 5, builders.change(new={"id": 1, "name": "a", "stock": 1}))


async def journal_with_one(path: Path) -> SqliteJournal:
    journal = SqliteJournal(path)
    await journal.open()
    journal.hold_changes("a", [CHANGE], KEY)
    await journal.audit(Audit(1.0, "root", "pause", "a", ""))
    return journal


def format_one(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(resources.files("backend_watcher.journal").joinpath("schema.sql").read_text())
    connection.close()


async def test_a_journal_of_format_1_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    format_one(path)
    await (await journal_with_one(path)).close()
    with SqliteJournalView(path) as view:
        assert [key.number for key in view.held_keys("a")] == [1]


def test_a_journal_of_format_1_can_be_looked_at(tmp_path: Path) -> None:
    format_one(tmp_path / "journal.db")
    with SqliteJournalView(tmp_path / "journal.db") as view:
        assert (view.held_keys("a"), view.held_changes("a"), view.audits(), view.held_subscriptions()) == (
            [],
            [],
            [],
            [],
        )


async def test_another_process_sees_what_is_held(tmp_path: Path) -> None:
    journal = await journal_with_one(tmp_path / "journal.db")
    await journal.flush()
    with SqliteJournalView(tmp_path / "journal.db") as view:
        assert view.held_subscriptions() == ["a"]
        assert [held.number for held in view.held_changes("a", 1)] == [5]
        assert [entry.action for entry in view.audits()] == ["pause"]
    await journal.close()


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE held_change SET payload = CAST(X'00' || substr(payload, 2) AS BLOB)", "does not match its checksum"),
        ("DELETE FROM shape", "is not in the journal"),
    ],
)
async def test_what_was_altered_is_found(tmp_path: Path, statement: str, says: str) -> None:
    path = tmp_path / "journal.db"
    await (await journal_with_one(path)).close()
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()
    with SqliteJournalView(path) as view, pytest.raises(JournalBroken, match=says):
        view.held_changes("a")


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit"])
async def test_the_audit_is_append_only(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "journal.db"
    await (await journal_with_one(path)).close()
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="append only"):
        connection.execute(statement)
    connection.close()
