"""
A prepared transaction that somebody left open. Pure.

It is delivered at its COMMIT PREPARED and no sooner; until then PostgreSQL keeps all WAL since it began, and vacuum
keeps every row that died since. Nobody is waiting for it any more who would notice.
"""

from __future__ import annotations

from backend_watcher.postgres.surroundings import PreparedSeen

PREPARED_SECONDS_MAX = 600.0
"""How long a transaction may stay prepared before it is told of."""


def judge_prepared(oldest: PreparedSeen | None, seconds_max: float) -> str:
    """Say what is wrong with the oldest prepared transaction of the cluster; empty where nothing is."""
    if oldest is None or oldest.age_seconds <= seconds_max:
        return ""
    gid = oldest.gid.replace("'", "''")
    return (
        f"transaction {oldest.gid!r} is prepared since {oldest.since} by {oldest.owner} on {oldest.database}, and "
        f"holds WAL and vacuum back; there: COMMIT PREPARED '{gid}'; or ROLLBACK PREPARED '{gid}';"
    )
