"""Every journal keeps the contract."""

import pytest

from backend_watcher.journal import MemoryJournal, SqliteJournal
from backend_watcher.testing.conformance_held import HeldConformance
from backend_watcher.testing.conformance_journal import JournalConformance, MakeJournal
from backend_watcher.testing.conformance_retention import RetentionConformance


class TestSqliteJournal(JournalConformance, RetentionConformance, HeldConformance):
    @pytest.fixture
    def make(self, tmp_path) -> MakeJournal:
        return lambda **options: SqliteJournal(tmp_path / "journal.db", **options)


class TestSqliteJournalWithoutMemory(JournalConformance, RetentionConformance, HeldConformance):
    """A tail of one block: almost everything is read from the file."""

    @pytest.fixture
    def make(self, tmp_path) -> MakeJournal:
        return lambda **options: SqliteJournal(tmp_path / "journal.db", tail_bytes=1, **options)


class TestMemoryJournal(JournalConformance, RetentionConformance, HeldConformance):
    @pytest.fixture
    def make(self) -> MakeJournal:
        made: list[MemoryJournal] = []

        def make(**options: object) -> MemoryJournal:
            # As a file would, the one journal keeps its content; only its limits are those of the new start.
            if made:
                made[0].limit(**options)
            else:
                made.append(MemoryJournal(**options))
            return made[0]

        return make
