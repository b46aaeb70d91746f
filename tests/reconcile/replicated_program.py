"""Replicas: as the source is, and behind a predicate and a transform in a schema of their own."""

import os

from backend_watcher import Change, Watcher
from backend_watcher.sinks import PostgresReplica

dsn = os.environ.get("FAULTS_REPLICA", "postgresql://127.0.0.1:1/copy")
watcher = Watcher("faults")
watcher.to(PostgresReplica(dsn), table=["items", "words", "pairs", "kinds", "bag"], name="copy")


def loud(change: Change) -> Change:
    """Write notes in capitals."""
    note = change.new["note"] if change.new is not None else None
    return change.replace(new={**change.new, "note": note.upper()}) if note is not None else change


def even(change: Change) -> bool:
    """Want every other row, and every truncate."""
    return change.operation == "truncate" or change.row["id"] % 2 == 0


watcher.to(PostgresReplica(dsn, schema="loud"), table="items", name="loud", transform=loud, when=even)
