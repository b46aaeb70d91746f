"""Savepoints and plpgsql blocks that are undone in the middle of transactions sent in parts: exactly what was kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres

from .judge import distinct, judge, read_seen
from .ledger import Ledger
from .results import Part
from .running import Running, environment, until
from .scale import dice, repeats
from .workload import IN_PARTS, KEYS, PUT, ROLLED_BACK, Client

TRANSACTIONS = repeats(12, 150)
LOOPS = 100
"""Blocks with an EXCEPTION clause in each call, half of them undone."""
DEPTH_MAX = 3
NOTE = "x" * 1900
"""Just below the size at which PostgreSQL would compress it."""
FUNCTION = """
CREATE FUNCTION write_some(rows jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE one jsonb;
BEGIN
    FOR one IN SELECT * FROM jsonb_array_elements(rows) LOOP
        BEGIN
            INSERT INTO items VALUES ((one ->> 'id')::int, (one ->> 'version')::bigint, repeat('x', 1900))
            ON CONFLICT (id) DO UPDATE SET version = excluded.version, note = excluded.note;
            PERFORM write_some(one -> 'inner');
            IF (one ->> 'undone')::boolean THEN
                RAISE EXCEPTION 'undone';
            END IF;
        EXCEPTION WHEN raise_exception THEN
            NULL;
        END;
    END LOOP;
END $$
"""
STREAMED = "SELECT stream_txns FROM pg_stat_replication_slots WHERE slot_name = 'watcher_faults'"


def blocks(client: Client, count: int, depth: int = DEPTH_MAX) -> list[dict[str, Any]]:
    """Rows to be written each in a block of its own, some with blocks inside, half of them undone in the end."""
    found = []
    for _ in range(count):
        row = client.row(client.dice.choice(client.keys))
        inner = blocks(client, client.dice.randint(0, 2), depth - 1) if depth else []
        undone = client.dice.random() < 0.5
        found.append({"id": row["id"], "version": row["version"], "inner": inner, "undone": undone})
    return found


def savepoints(connection: psycopg.Connection[Any], client: Client, depth: int = DEPTH_MAX) -> None:
    """Write, with savepoints inside savepoints, and go back to some of them."""
    for _ in range(client.dice.randint(2, 5)):
        for _ in range(client.dice.randint(5, 15)):
            connection.execute(PUT, client.row(client.dice.choice(client.keys)) | {"note": NOTE})
        if depth:
            with connection.transaction(force_rollback=client.dice.random() < 0.5):
                savepoints(connection, client, depth - 1)


@pytest.mark.slow
@pytest.mark.timeout(repeats(180, 900))
@pytest.mark.scenario("17", "subtransactions that are undone, in parts")
@pytest.mark.parametrize("streaming", [True, False], ids=["in parts", "whole"])
@pytest.mark.parametrize("postgres", [IN_PARTS], indirect=True, ids=[""])
def test_exactly_what_was_kept_is_delivered(
    postgres: EmbeddedPostgres, tmp_path: Path, result: Part, streaming: bool
) -> None:
    client = Client(str(dice("subtransactions").random()), 0, 1)
    environ = environment(tmp_path, postgres, WATCHER_SOURCE__STREAMING=str(streaming).lower())
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(FUNCTION)
        # For the ledger's own slot: so many spilled subtransactions have ended the server that it asks.
        connection.execute("SET logical_decoding_work_mem = '1GB'")
        ledger = Ledger(connection)
        with Running(tmp_path, environ) as running:
            running.wait_for_streaming(connection)
            known_example(connection, client)
            for _ in range(TRANSACTIONS):
                with connection.transaction(force_rollback=client.dice.random() < ROLLED_BACK):
                    savepoints(connection, client)
                with connection.transaction(force_rollback=client.dice.random() < ROLLED_BACK):
                    rows = blocks(client, LOOPS)
                    connection.execute("SELECT write_some(%s::jsonb)", [json.dumps(rows)])
            facts = ledger.facts()
            until(lambda: distinct(tmp_path / "seen") >= len(facts) or running.ended, "delivery")
            assert running.end() == 0, running.log()[-3000:]
        (parts,) = connection.execute(STREAMED).fetchone() or (0,)
    verdict = judge(facts, read_seen(tmp_path / "seen"))
    print(f"{len(facts)} changes were kept, {parts} transactions came in parts")
    result.add(runs=1, transactions=2 * TRANSACTIONS + 1, in_parts=parts)
    verdict.check(result)
    assert verdict.duplicates == 0
    assert bool(parts) == streaming


def known_example(connection: psycopg.Connection[Any], client: Client) -> None:
    """500 rows around a savepoint that is undone, and five after it: another reader delivered only these five."""
    rows = [client.row(client.keys[number % KEYS]) | {"note": NOTE} for number in range(1010)]
    with connection.transaction():
        for row in rows[:500]:
            connection.execute(PUT, row)
        with connection.transaction(force_rollback=True):
            for row in rows[500:1005]:
                connection.execute(PUT, row)
        for row in rows[1005:]:
            connection.execute(PUT, row)
