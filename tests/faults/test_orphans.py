"""What a watcher leaves at the source when it is gone: its slot and its publication, and nothing else."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from backend_watcher.embedded import EmbeddedPostgres

from .results import Part
from .running import SLOT, Running, environment
from .scale import dice
from .workload import Workload

# Everything in a database that a program could leave behind; each row is one object.
OBJECTS = """
SELECT 'slot ' || slot_name FROM pg_replication_slots
UNION ALL SELECT 'publication ' || pubname FROM pg_publication
UNION ALL SELECT 'schema ' || nspname FROM pg_namespace
UNION ALL SELECT 'relation ' || oid::regclass FROM pg_class WHERE relkind <> 't' AND relpersistence <> 't'
UNION ALL SELECT 'function ' || oid::regprocedure FROM pg_proc
UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
UNION ALL SELECT 'role ' || rolname FROM pg_roles
UNION ALL SELECT 'origin ' || roname FROM pg_replication_origin
UNION ALL SELECT 'extension ' || extname FROM pg_extension
UNION ALL SELECT 'identity ' || oid::regclass || relreplident::text FROM pg_class WHERE relreplident IN ('f', 'i')
"""
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'backend_watcher%'"


def objects(connection: psycopg.Connection) -> set[str]:
    return {row[0] for row in connection.execute(OBJECTS)}


@pytest.mark.timeout(120)
@pytest.mark.scenario("58", "what is left when a watcher is removed")
def test_only_a_slot_and_a_publication_are_left(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        before = objects(connection)
        with Running(tmp_path, environment(tmp_path, postgres)) as running:
            running.wait_for_streaming(connection)
            with Workload(postgres.dsn, dice("orphans").random()) as workload:
                running.wait_for_delivery()
                workload.stop()
            assert running.end() == 0
        assert objects(connection) - before == {f"slot {SLOT}", f"publication {SLOT}"}
        assert connection.execute(SESSIONS).fetchone() == (0,)
        connection.execute("SELECT pg_drop_replication_slot(%s)", [SLOT])
        connection.execute(sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(SLOT)))
        left = objects(connection) - before
        result.add(runs=1, orphans=len(left))
        assert not left
