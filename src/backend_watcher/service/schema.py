"""What a person does about schema changes: looks at those that are open, and marks them as seen, which is audited."""

from __future__ import annotations

import time
from collections.abc import Callable

from backend_watcher.capture.schema_notes import load_changes, note_name, open_changes
from backend_watcher.contracts import Audit, Journal
from backend_watcher.errors import ConfigError
from backend_watcher.events.schema_change import SchemaChange
from backend_watcher.service.config import Config


def schema_changes(config: Config) -> list[SchemaChange]:
    """Return those that nobody has marked as seen, oldest first. Raises JournalError."""
    from backend_watcher.service.control import open_journal

    with open_journal(config) as view:
        return open_changes(view.notes())


def trigger_script() -> str:
    """Return the statements that make the event triggers, for who may run them."""
    from backend_watcher.postgres.ddl_triggers import script

    return script()


async def mark_seen(journal: Journal, number: int | None, by: str, now: Callable[[], float] = time.time) -> str:
    """Mark one, or with None all, as seen, and say so. Raises ConfigError for a number that is not open."""
    found = [one for one in await load_changes(journal) if number in (None, one.number)]
    if number is not None and not found:
        raise ConfigError([f"there is no open schema change {number}"], remedy="`watcher schema list` shows them.")
    for one in found:
        # Said before it is gone: the audit is the only place that will know of it.
        detail = f"{one.kind}: {one.what}; {one.reason}"
        await journal.audit(Audit(now(), by, "schema change seen", f"{one.table} ({one.number})", detail))
        await journal.set_note(note_name(one.number), None)
    return f"{len(found)} schema {'change is' if len(found) == 1 else 'changes are'} marked as seen"
