"""Giving up a transaction that PostgreSQL cannot send: the journal goes on behind it, and so does the next session."""

from __future__ import annotations

from backend_watcher.capture.undecodable import NOTE, Undecodable
from backend_watcher.contracts import Journal
from backend_watcher.errors import ConfigError
from backend_watcher.events.position import format_lsn


async def skip_undecodable(journal: Journal, commit_lsn: int) -> str:
    """
    Let the journal end behind a transaction, and say what that means. Raises ConfigError for any other than the one.

    PostgreSQL sends no transaction that commits before the place where a stream begins, and that is the journal's end.
    """
    stuck = Undecodable.from_note(await journal.get_note(NOTE))
    if stuck is None or stuck.commit_lsn is None or stuck.commit_lsn < journal.durable_lsn:
        raise ConfigError(["the source is stuck at no transaction"])
    if stuck.commit_lsn != commit_lsn:
        raise ConfigError([f"the source is stuck at the transaction that commits at {format_lsn(stuck.commit_lsn)}"])
    await journal.advance(commit_lsn + 1)
    await journal.set_note(NOTE, None)
    change = format_lsn(stuck.change_lsn)
    return f"the transaction that commits at {format_lsn(commit_lsn)} is skipped from its change at {change} on"
