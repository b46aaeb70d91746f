"""The durable, ordered log of everything captured: one SQLite file, or memory for tests and examples."""

from backend_watcher.journal.memory import MemoryJournal
from backend_watcher.journal.sqlite import SqliteJournal
from backend_watcher.journal.view import SqliteJournalView

__all__ = ["MemoryJournal", "SqliteJournal", "SqliteJournalView"]
