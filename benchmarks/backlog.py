"""The backlog every path reads: one large transaction, then many small ones, and a copy of the slot for each path."""

from __future__ import annotations

import psycopg

SLOT = "bench"
PUBLICATION = "bench"
TABLE = """
CREATE TABLE items (
    id bigint PRIMARY KEY, quantity int NOT NULL, name text NOT NULL, price numeric(12, 2) NOT NULL,
    code char(8) NOT NULL, details jsonb NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
    note text, active bool NOT NULL
)
"""
ROWS = """
INSERT INTO items
SELECT i, i % 1000, 'item number ' || i, i * 1.25, 'C' || (i % 100000),
       jsonb_build_object('size', i % 50, 'colour', 'red'), now(), now(), repeat('n', 20), i % 2 = 0
FROM generate_series(1, {rows}) AS i
"""
UPDATES = """
DO $$ BEGIN
    FOR i IN 1..{updates} LOOP
        UPDATE items SET quantity = quantity + 1, updated_at = clock_timestamp() WHERE id = 1 + (i * 7919) % {rows};
        COMMIT;
    END LOOP;
END $$
"""


def write(dsn: str, rows: int, updates: int) -> str:
    """Create the table, publication and slot, write the backlog, and return the LSN where it ends."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(TABLE)
        connection.execute(f"CREATE PUBLICATION {PUBLICATION} FOR TABLE items")
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (SLOT,))
        connection.execute("SET synchronous_commit = off")
        connection.execute(ROWS.format(rows=rows))
        connection.execute(UPDATES.format(rows=rows, updates=updates))
        connection.execute("CHECKPOINT")
        row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
        assert row is not None
        return row[0]


def copy_slot(dsn: str, name: str) -> None:
    """Make a slot that stands where the first one was created."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_copy_logical_replication_slot(%s, %s)", (SLOT, name))


def drop_slot(dsn: str, name: str) -> None:
    """Drop a copy, once its reader has gone."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_drop_replication_slot(%s)", (name,))
