"""What our role may not do."""

from __future__ import annotations

import re

from backend_watcher.postgres.connect import Connection, connect
from backend_watcher.postgres.findings import Level
from backend_watcher.postgres.privileges import judge_withheld, names_asked, withheld
from backend_watcher.postgres.queries import QUERIES

from .conftest import make, make_role


def test_every_query_of_a_source_is_thought_of() -> None:
    names = set(names_asked())
    assert {"pg_logical_emit_message", "pg_create_logical_replication_slot", "pg_control_system", "pg_locks"} <= names
    for query in ("server", "surroundings", "open_transactions", "create_slot", "emit_message", "shapes"):
        code = "\n".join(line for line in QUERIES[query].decode().splitlines() if not line.startswith("--"))
        assert set(re.findall(r"\bpg_\w+", code)) <= names, query


def test_each_is_named_with_its_grant() -> None:
    (found,) = judge_withheld(["SELECT ON pg_locks"], 'w"x')
    assert (found.level, found.code) == (Level.FAULT, "catalog_privilege")
    assert found.remedy == 'GRANT SELECT ON pg_locks TO "w""x";'


async def test_by_default_nothing_is_withheld(dsn: str, conn: Connection) -> None:
    async with await connect(await make_role(conn, dsn), purpose="test", read_only=True) as watcher:
        assert await withheld(watcher) == []


async def test_what_was_taken_away_is_found(dsn: str, conn: Connection) -> None:
    function = "pg_logical_emit_message(boolean, text, text"
    function += ", boolean)" if conn.info.server_version >= 170_000 else ")"
    await make(
        conn, f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC", "REVOKE SELECT ON pg_publication_rel FROM PUBLIC"
    )
    async with await connect(await make_role(conn, dsn), purpose="test", read_only=True) as watcher:
        found = await withheld(watcher)
        assert found == [
            f"EXECUTE ON FUNCTION {function.replace(', ', ',')}",
            "SELECT ON pg_publication_rel",
        ]
        await make(conn, *(finding.remedy for finding in judge_withheld(found, "watcher")))
        assert await withheld(watcher) == []
