"""
A workload with everything pgoutput can say, and what a real server says of it.

The corpus is such a recording. It is made anew with `PYTHONPATH=src:tests python -m fuzz.recording`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from backend_watcher.embedded import EmbeddedPostgres

CORPUS = Path(__file__).parent / "corpus"
SETTINGS = {"logical_decoding_work_mem": "64kB", "max_prepared_transactions": "10"}
PLAIN, TWO_PHASE = "plain", "two_phase"
BULK_ROWS = 400

SCHEMA = """
CREATE TYPE mood AS ENUM ('sad', 'grün');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE items (id bigint PRIMARY KEY, name text, mood mood, price numeric(10, 2), made timestamptz,
                    photo bytea, doc jsonb, large text);
ALTER TABLE items ALTER large SET STORAGE EXTERNAL;
CREATE TABLE whole (a int, b text, p pair, large text);
ALTER TABLE whole ALTER large SET STORAGE EXTERNAL, REPLICA IDENTITY FULL;
CREATE TABLE indexed (id int PRIMARY KEY, email text NOT NULL, n positive);
CREATE UNIQUE INDEX by_email ON indexed (email);
ALTER TABLE indexed REPLICA IDENTITY USING INDEX by_email;
CREATE TABLE "Größe.2" (a text, b int, note text, PRIMARY KEY (b, a));
CREATE TABLE hidden (id int PRIMARY KEY);
CREATE PUBLICATION watched FOR TABLE items, whole, indexed, "Größe.2";
"""

ITEM = (
    "INSERT INTO items VALUES "
    "({0}, 'name {0}', 'grün', {0}.50, '2026-07-31 12:00:00+00', '\\x00ff', '{{\"n\": {0}}}', {1})"
)
BULK = "INSERT INTO items (id, name) SELECT n, repeat('x', 300) FROM generate_series({0}, {0} + {1} - 1) n"
LARGE = "repeat('0123456789', 210)"

# Each transaction, and the changes (as kinds of message) that must come of it, in the order of commits.
TRANSACTIONS: list[tuple[str, list[str]]] = [
    ("II", [ITEM.format(1, LARGE), ITEM.format(2, "NULL")]),
    ("II", [f"INSERT INTO whole VALUES (1, 'b', (1, 'x'), {LARGE}), (NULL, NULL, NULL, NULL)"]),
    ("III", ["INSERT INTO indexed VALUES (1, 'a@x', 5), (2, 'b@x', NULL), (3, 'c@x', 7)"]),
    ("II", ["INSERT INTO \"Größe.2\" VALUES ('a', 1, 'n'), ('b', 1, NULL)"]),
    ("U", ["UPDATE items SET name = NULL WHERE id = 1"]),
    ("U", ["UPDATE items SET id = 10, large = 'short' WHERE id = 1"]),
    ("UU", ["UPDATE whole SET b = 'changed'"]),
    ("UU", ["UPDATE indexed SET email = 'z@x' WHERE id = 1", "UPDATE indexed SET n = 9 WHERE id = 2"]),
    ("U", ["UPDATE \"Größe.2\" SET a = 'c', note = 'ü' WHERE a = 'b'"]),
    ("DD", ["DELETE FROM items WHERE id = 2", "DELETE FROM whole WHERE a IS NULL"]),
    ("DD", ["DELETE FROM indexed WHERE id = 3", "DELETE FROM \"Größe.2\" WHERE a = 'a'"]),
    ("III", ["SAVEPOINT a", ITEM.format(3, "NULL"), "SAVEPOINT b", ITEM.format(4, "NULL"), "ROLLBACK TO b",
             ITEM.format(5, "''"), "RELEASE a", ITEM.format(6, LARGE)]),
    ("", [ITEM.format(7, "NULL"), "ROLLBACK"]),
    ("", ["INSERT INTO hidden VALUES (1)"]),
    ("IMI", [ITEM.format(7, "NULL"), "SELECT pg_logical_emit_message(true, 'kept', 'inside')",
             "SELECT pg_logical_emit_message(false, 'loose', 'at once')", ITEM.format(8, "NULL")]),
    ("", ["SELECT pg_logical_emit_message(true, 'lost', 'x')",
          "SELECT pg_logical_emit_message(false, 'loose', '\\xff00'::bytea)", "ROLLBACK"]),
    ("T", ["TRUNCATE indexed, whole RESTART IDENTITY CASCADE"]),
    ("TI", ["TRUNCATE hidden, indexed", "INSERT INTO indexed VALUES (9, 'i@x', 1)"]),
    ("III", ["INSERT INTO \"Größe.2\" VALUES ('d', 4, 'before')", "ALTER TABLE \"Größe.2\" ADD extra int DEFAULT 5",
             "INSERT INTO \"Größe.2\" VALUES ('e', 5, 'after', 6)", "ALTER TABLE \"Größe.2\" DROP note",
             "INSERT INTO \"Größe.2\" VALUES ('f', 6, 7)"]),
]  # fmt: skip


def bulk(rows: int) -> list[tuple[str, list[str]]]:
    """Transactions larger than the memory of a walsender, so that they are streamed; part of one is undone."""
    return [
        ("I" * (2 * rows + 1), [BULK.format(10_000, rows), "SAVEPOINT a", BULK.format(20_000, rows), "ROLLBACK TO a",
                                ITEM.format(9, "NULL"), BULK.format(30_000, rows)]),
        ("", [BULK.format(40_000, rows), "ROLLBACK"]),
        ("IMTI" + "I" * rows,
         [ITEM.format(50, "NULL"), "SELECT pg_logical_emit_message(true, 'streamed', '')", "TRUNCATE whole",
          "INSERT INTO whole VALUES (3, 'z', (2, ''), NULL)", BULK.format(50_000, rows)]),
        ("UU" + "D" * rows,
         ["UPDATE whole SET b = 'y'", "UPDATE items SET id = 51 WHERE id = 50", "DELETE FROM items WHERE id >= 50000"]),
    ]  # fmt: skip


def prepared(rows: int) -> list[tuple[str, list[str], str]]:
    """Two-phase transactions: what comes of them once they are ended, and how they end."""
    return [
        ("IU", [ITEM.format(60, "NULL"), "UPDATE items SET name = 'p' WHERE id = 60"], "COMMIT"),
        ("", [ITEM.format(61, "NULL")], "ROLLBACK"),
        ("I" * rows, [BULK.format(60_000, rows)], "COMMIT"),
        ("", [BULK.format(70_000, rows)], "ROLLBACK"),
    ]


def run_workload(dsn: str, rows: int = BULK_ROWS) -> list[str]:
    """Do everything, with the slots in place; return the kinds of the changes of each transaction that has some."""
    expected = []
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute("SET client_min_messages = warning")
        for statement in filter(str.strip, SCHEMA.split(";")):
            db.execute(statement.encode())
        db.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [PLAIN])
        db.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput', false, true)", [TWO_PHASE])
        for kinds, statements in [*TRANSACTIONS, *bulk(rows)]:
            run_transaction(db, statements)
            expected.append(kinds)
        for number, (kinds, statements, end) in enumerate(prepared(rows)):
            run_transaction(db, [*statements, f"PREPARE TRANSACTION 'gid {number}'"])
            db.execute(f"{end} PREPARED 'gid {number}'".encode())
            expected.append(kinds)
        db.execute("SELECT pg_replication_origin_create('elsewhere')")
        db.execute("SELECT pg_replication_origin_session_setup('elsewhere')")
        run_transaction(db, ["SELECT pg_replication_origin_xact_setup('0/55', now())", ITEM.format(90, "NULL")])
        expected.append("I")
    return [kinds for kinds in expected if kinds]


def run_transaction(db: psycopg.Connection, statements: list[str]) -> None:
    for statement in ["BEGIN", *statements]:
        db.execute(statement.encode())
    if not statements[-1].startswith(("ROLLBACK", "PREPARE")) or " TO " in statements[-1]:
        db.execute("COMMIT")


def record(dsn: str, slot: str, *, immediate: bool = False, **options: str) -> list[bytes]:
    """What the server says of everything in the slot, which stays as it is."""
    given = {"publication_names": "watched", "messages": "true", **options}
    places = ", ".join("%s, %s" for _ in given)
    with psycopg.connect(dsn, autocommit=True) as db:
        if immediate:
            # Every change is streamed, so that a small recording has streams too.
            db.execute("SET debug_logical_replication_streaming = immediate")
        asked = f"SELECT data FROM pg_logical_slot_peek_binary_changes('{slot}', NULL, NULL, {places})"
        words = [word for pair in given.items() for word in pair]
        return [row[0] for row in db.execute(asked.encode(), words, binary=True)]


MODES: dict[str, dict[str, Any]] = {
    "v1_text": {"slot": PLAIN, "proto_version": "1"},
    "v1_binary": {"slot": PLAIN, "proto_version": "1", "binary": "true", "origin": "any"},
    "v2_whole": {"slot": PLAIN, "proto_version": "2"},
    "v2_streamed": {"slot": PLAIN, "proto_version": "2", "streaming": "on"},
    "v3_two_phase": {"slot": TWO_PHASE, "proto_version": "3", "two_phase": "true"},
    "v3_streamed": {"slot": TWO_PHASE, "proto_version": "3", "two_phase": "true", "streaming": "on", "binary": "true"},
    "v4_parallel": {"slot": PLAIN, "proto_version": "4", "streaming": "parallel", "binary": "true"},
    "v4_two_phase": {"slot": TWO_PHASE, "proto_version": "4", "two_phase": "true", "streaming": "parallel"},
}


def modes_of(server_version: int) -> dict[str, dict[str, Any]]:
    """Return the modes that a server knows: protocol 3 came with PostgreSQL 15, protocol 4 and `origin` with 16."""
    highest = min(max(server_version // 10_000 - 12, 2), 4)
    known = {name: options for name, options in MODES.items() if int(options["proto_version"]) <= highest}
    if highest == 4:
        return known
    return {name: {key: one for key, one in options.items() if key != "origin"} for name, options in known.items()}


def write_corpus() -> None:
    with EmbeddedPostgres(settings=SETTINGS) as server:
        run_workload(server.dsn, rows=2)
        for name in ("v1_text", "v1_binary", "v3_two_phase", "v3_streamed", "v4_two_phase"):
            found = record(server.dsn, immediate="streaming" in MODES[name], **MODES[name])
            packed = b"".join(struct.pack(">I", len(message)) + message for message in found)
            (CORPUS / f"{name}.bin").write_bytes(packed)


def read_corpus() -> dict[str, list[bytes]]:
    return {path.stem: list(_unpack(path.read_bytes())) for path in sorted(CORPUS.glob("*.bin"))}


def _unpack(packed: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(packed):
        (size,) = struct.unpack_from(">I", packed, at)
        yield packed[at + 4 : at + 4 + size]
        at += 4 + size


if __name__ == "__main__":
    write_corpus()
