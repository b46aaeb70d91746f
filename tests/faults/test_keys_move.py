"""Keys that move, swap, go in circles and from partition to partition, equal rows without any key: equal in the end."""

from __future__ import annotations

import contextlib
import json
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey

from .results import Part
from .running import Running, environment, until
from .scale import dice, repeats

PROGRAM = Path(__file__).parent / "keys_program.py"
TRANSACTIONS = repeats(400, 20_000)
KILLS = repeats(3, 40)
KEYS = 12
EQUAL_SECONDS_MAX = 60.0
SCHEMA = """
CREATE TABLE keyed (id int PRIMARY KEY, v int NOT NULL);
CREATE TABLE pairs (a int, b text, v int NOT NULL, PRIMARY KEY (b, a));
CREATE TABLE parts (id int, at int, v int NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts_2 (v int NOT NULL, at int NOT NULL, gone int, id int NOT NULL);
ALTER TABLE parts_2 DROP gone, ADD PRIMARY KEY (id, at);
ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM (10) TO (40);
CREATE TABLE named (id int PRIMARY KEY, email text NOT NULL, v int NOT NULL);
CREATE UNIQUE INDEX by_email ON named (email);
ALTER TABLE named REPLICA IDENTITY USING INDEX by_email;
CREATE TABLE bag (a int, b text);
ALTER TABLE bag REPLICA IDENTITY FULL;
CREATE TABLE done (id int PRIMARY KEY);
"""
# The key of each table in the stream, and what the cache has it by.
KEY = {"keyed": ("id",), "pairs": ("b", "a"), "parts": ("id", "at"), "named": ("email",)}


class Shuffler:
    """Random transactions: rows come, change and go, and their keys move."""

    def __init__(self, connection: psycopg.Connection[Any], rolls: random.Random) -> None:
        self._do = connection.execute
        self._connection = connection
        self._dice = rolls
        self._v = 0
        # Of each table: what a number between 0 and KEYS is as its key, as SQL on a column.
        self._moved = {
            "keyed": "id = {to} WHERE id = {of}",
            "pairs": "a = {to} % 3, b = 'k' || {to} / 3 WHERE a = {of} % 3 AND b = 'k' || {of} / 3",
            "parts": "id = {to} % 5, at = {to} / 5 * 10 WHERE id = {of} % 5 AND at = {of} / 5 * 10",
            "named": "email = 'e{to}', id = {to} WHERE id = {of}",
        }
        self._values = {
            "keyed": "({0}, {1})",
            "pairs": "({0} % 3, 'k' || {0} / 3, {1})",
            "parts": "({0} % 5, {0} / 5 * 10, {1})",
            "named": "({0}, 'e{0}', {1})",
        }

    def run(self, count: int) -> None:
        """Do so many transactions; some are rolled back."""
        for _ in range(count):
            with self._connection.transaction(force_rollback=self._dice.random() < 0.1):
                for _ in range(self._dice.randint(1, 4)):
                    if self._dice.random() < 0.15:
                        self._bag()
                        continue
                    table = self._dice.choice(list(self._values))
                    self._dice.choice([self._put, self._put, self._remove, self._move, self._swap, self._swap])(table)

    def _put(self, table: str) -> None:
        self._v += 1
        key = self._dice.randrange(KEYS)
        target = ", ".join(KEY[table]) if table != "named" else "id"
        values = self._values[table].format(key, self._v)
        statement = f"INSERT INTO {table} VALUES {values} ON CONFLICT ({target}) DO UPDATE SET v = excluded.v"
        self._do(statement.encode())

    def _remove(self, table: str) -> None:
        if self._dice.random() < 0.05:
            self._do(f"TRUNCATE {table}".encode())
            return
        where = self._moved[table].partition(" WHERE ")[2].format(of=self._dice.randrange(KEYS))
        self._do(f"DELETE FROM {table} WHERE {where}".encode())

    def _rename(self, table: str, of: int, to: int) -> None:
        self._do(f"UPDATE {table} SET {self._moved[table].format(of=of, to=to)}".encode())

    def _move(self, table: str) -> None:
        """To a free key, often in the other partition; what was there goes first."""
        of, to = self._dice.sample(range(KEYS), 2)
        where = self._moved[table].partition(" WHERE ")[2].format(of=to)
        self._do(f"DELETE FROM {table} WHERE {where}".encode())
        self._rename(table, of, to)

    def _swap(self, table: str) -> None:
        """Two rows, or more in a circle, have each other's keys in the end."""
        keys = self._dice.sample(range(KEYS), self._dice.choice([2, 2, 3]))
        aside = KEYS + 1
        self._rename(table, keys[0], aside)
        for of, to in zip(keys[1:], keys, strict=False):
            self._rename(table, of, to)
        self._rename(table, aside, keys[-1])

    def _bag(self) -> None:
        number, one = self._dice.randint(0, 2), "ctid = (SELECT ctid FROM bag WHERE a = %(a)s LIMIT 1)"
        statements = ["INSERT INTO bag SELECT %(a)s, NULL FROM generate_series(1, 2)"]
        statements += [f"UPDATE bag SET b = coalesce(b, '') || 'x' WHERE {one}", f"DELETE FROM bag WHERE {one}"]
        statements += ["UPDATE bag SET a = a + 1 WHERE a = %(a)s AND b IS NULL"]
        self._do(self._dice.choice(statements).encode(), {"a": number})


@pytest.mark.slow
@pytest.mark.timeout(repeats(180, 1200))
@pytest.mark.scenario("39", "keys that move, swap and cross partitions")
def test_everybody_ends_equal(postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part) -> None:
    rolls = dice("keys")
    with EmbeddedPostgres() as target, psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(SCHEMA)
        environ = environment(tmp_path, postgres, valkey, FAULTS_REPLICA=target.dsn)
        shuffler = Shuffler(connection, rolls)
        for _ in range(KILLS):
            with Running(tmp_path, environ, program=PROGRAM, often=True) as running:
                running.wait_for_streaming(connection)
                shuffler.run(TRANSACTIONS // (KILLS + 1))
                running.end(signal.SIGKILL)
        with Running(tmp_path, environ, program=PROGRAM) as last:
            last.wait_for_streaming(connection)
            shuffler.run(TRANSACTIONS // (KILLS + 1))
            connection.execute("INSERT INTO done VALUES (1)")
            source = rows_of(connection)
            with psycopg.connect(target.dsn, autocommit=True) as there:
                until(lambda: is_done(there), "the replica's end")

                def different() -> dict[str, list[str]]:
                    found = {
                        "replica": rows_of(there),
                        "cache": cache(valkey),
                        "function": mirror(tmp_path / "seen")[0],
                    }
                    return {sink: differences(source, rows) for sink, rows in found.items()}

                with contextlib.suppress(AssertionError):
                    until(lambda: not any(different().values()), "being equal", EQUAL_SECONDS_MAX)
                assert last.end() == 0, last.log()[-3000:]
                left = different()
    _, twice = mirror(tmp_path / "seen")
    result.add(runs=1, kills=KILLS, duplicates=twice, lost=sum(map(len, left.values())))
    assert left == {"replica": [], "cache": [], "function": []}
    assert sum(map(len, source.values())) > KEYS


def rows_of(connection: psycopg.Connection[Any]) -> dict[str, Counter[str]]:
    """Return the rows of each table, as JSON with sorted names."""
    found = {}
    for table in (*KEY, "bag"):
        query = sql.SQL("SELECT to_jsonb(t) FROM {} t").format(sql.Identifier(table))
        found[table] = Counter(plain(row) for (row,) in connection.execute(query))
    return found


def differences(source: dict[str, Counter[str]], found: dict[str, Counter[str]]) -> list[str]:
    """Return the tables that differ; a sink need not have all of them."""
    return [table for table in found if found[table] != source[table]]


def plain(row: dict[str, Any]) -> str:
    return json.dumps(row, sort_keys=True)


def is_done(there: psycopg.Connection[Any]) -> bool:
    known = there.execute("SELECT to_regclass('public.done') IS NOT NULL").fetchone() == (True,)
    return known and there.execute("SELECT count(*) FROM public.done").fetchone() == (1,)


def mirror(path: Path) -> tuple[dict[str, Counter[str]], int]:
    """Keep rows by key, as a plain function would; return them, and how many lines came again."""
    rows: dict[str, dict[str, str]] = {table: {} for table in KEY}
    bag: Counter[str] = Counter()
    known: set[str] = set()
    again = 0
    for line in path.read_text().split("\n")[:-1]:
        told = json.loads(line)
        table, key = told["table"], json.dumps(told["key"])
        again += told["event_id"] in known
        if told["event_id"] in known or table == "done":
            continue
        known.add(told["event_id"])
        if table == "bag":
            if told["old"] is not None:
                bag[plain(dict(zip("ab", told["old"], strict=True)))] -= 1
            if told["new"] is not None:
                bag[plain(told["new"])] += 1
            continue
        if told["operation"] == "truncate":
            rows[table].clear()
        for gone in filter(None, (told["key_before"], told["key"] if told["operation"] == "delete" else None)):
            rows[table].pop(json.dumps(gone), None)
        if told["new"] is not None:
            rows[table][key] = plain(told["new"])
    return {**{table: Counter(kept.values()) for table, kept in rows.items()}, "bag": +bag}, again


def cache(valkey: EmbeddedValkey) -> dict[str, Counter[str]]:
    with redis.Redis.from_url(valkey.url) as client:
        found = {}
        for table in KEY:
            keys = list(client.scan_iter(f"{table}:*", count=1000))
            found[table] = Counter(plain(json.loads(value)) for value in (client.mget(keys) if keys else []))
    return found
