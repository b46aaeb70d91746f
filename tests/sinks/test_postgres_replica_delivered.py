"""From a real source to a real replica, with kills between the statements: equal in the end, whole at every commit."""

from __future__ import annotations

import os
import random
import secrets
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres
from faults.running import Running, pause, until
from postgres.conftest import dsn, server  # noqa: F401 fixtures

STRANGE = 'a "b".\N{ELEPHANT}'
PROGRAM = f"""
import os
from backend_watcher import Watcher
from backend_watcher.sinks import PostgresReplica

watcher = Watcher("replica")
tables = ["accounts", "bag", "kinds", {'public."' + STRANGE.replace('"', '""') + '"'!r}, "done"]
watcher.to(PostgresReplica(os.environ["REPLICA_DSN"], create=True), table=tables, name="copy", retry_seconds_max=0.2)
"""
TABLES = f"""
CREATE TABLE accounts (id int PRIMARY KEY, balance numeric NOT NULL, note text);
CREATE TABLE bag (a int, b json, c text);
ALTER TABLE bag REPLICA IDENTITY FULL;
CREATE TABLE "{STRANGE.replace('"', '""')}" (id bigint, "wh.at" text, "%s" text, PRIMARY KEY (id, "wh.at"));
CREATE TABLE done (id int PRIMARY KEY);
CREATE TABLE kinds (
    id int PRIMARY KEY, n numeric, m numeric(12, 2), f float8, r float4, t timestamptz, u timestamp, d date, h time,
    z timetz, i interval, y bytea, j json, k jsonb, a int[], s text[], c char(8), v varchar(9), b bit(5), o bit varying,
    p point, q int4range, e inet, w money, g uuid, l bool, ts tsvector, name name, one "char"
);
"""
KINDS = """
INSERT INTO kinds VALUES
(1, 'NaN', 1.5, '-0', 'Infinity', 'infinity', '294276-12-31 23:59:59.999999', '4713-01-01 BC', '24:00:00',
 '00:00:00+15:59:59', '-1 mons +2 days -00:00:00.000001', '\\x00ff', '{"a":  null}', 'null', '[0:1]={1,NULL}',
 '{"","a\\\\b\\"c",NULL,"NULL"}', 'ab', 'x  ', '10101', '', '(1,-2)', '[1,5)', '::1/64', '12.34',
 '00000000-0000-0000-0000-00000000000a', true, 'a:1 b:2', 'name', 'q'),
(2, '1e-16383', -0.01, 5e-324, 1e-45, '0044-03-15 12:00 BC', '-infinity', 'infinity', '00:00', '12:00-15:59', '0', '',
 '0', '{"b": 1, "a": "\\u00e9"}', '{}', E'{"tab\\there","line\\nbreak"}', '', '', '00000', '111', NULL, 'empty',
 '10.0.0.1', '-1', NULL, false, '', E'\\\\', '');
INSERT INTO kinds (id, n) VALUES (3, '-1e131071')
"""
ACCOUNTS = 12
TRANSACTIONS = 250
KILLS = 8
LIFE_SECONDS_MAX = 60.0


def folded(dsn: str) -> dict[str, list[Any]]:  # noqa: F811
    """Return every table as sorted texts."""
    found = {}
    with psycopg.connect(dsn) as connection:
        connection.execute("SET extra_float_digits = 3; SET timezone = 'UTC'")
        for name in ("accounts", "bag", "kinds", STRANGE):
            quoted = name.replace('"', '""')
            rows = connection.execute(f'SELECT whole::text FROM public."{quoted}" whole'.encode()).fetchall()
            found[name] = sorted(row[0] for row in rows)
    return found


class Bank:
    """Random transactions at the source: transfers, equal rows, changed and swapped keys, large values, truncates."""

    def __init__(self, connection: psycopg.Connection[Any], dice: random.Random) -> None:
        self._connection = connection
        self._dice = dice
        self._strange = psycopg.sql.Identifier(STRANGE)

    def run(self, count: int) -> None:
        for _ in range(count):
            with self._connection.transaction():
                for _ in range(self._dice.randint(1, 3)):
                    self._dice.choice([self.transfer, self.transfer, self.swap, self.equal_rows, self.strange])()

    def transfer(self) -> None:
        one, other = self._dice.sample(range(ACCOUNTS), 2)
        amount = self._dice.randint(-50, 50)
        for account, change in ((one, amount), (other, -amount)):
            large = self._dice.random() < 0.2
            note = ", note = repeat(md5(random()::text), 300)" if large else ""
            query = f"UPDATE accounts SET balance = balance + %s{note} WHERE id = %s"
            self._connection.execute(query.encode(), [change, account])

    def swap(self) -> None:
        keys = self._dice.sample(range(ACCOUNTS), self._dice.choice([2, 3]))
        self._connection.execute("UPDATE accounts SET id = -1 WHERE id = %s", [keys[0]])
        for to, key in pairwise(keys):
            self._connection.execute("UPDATE accounts SET id = %s WHERE id = %s", [to, key])
        self._connection.execute("UPDATE accounts SET id = %s WHERE id = -1", [keys[-1]])

    def equal_rows(self) -> None:
        number = self._dice.randint(0, 2)
        one = "ctid = (SELECT ctid FROM bag WHERE a = %s LIMIT 1)"
        statements = ["INSERT INTO bag SELECT %s, '{\"a\":  1}', NULL FROM generate_series(1, 2)"]
        statements += [f"UPDATE bag SET c = coalesce(c, '') || 'x' WHERE {one}", f"DELETE FROM bag WHERE {one}"]
        self._connection.execute(self._dice.choice(statements).encode(), [number])

    def strange(self) -> None:
        key = (self._dice.randint(0, 3), self._dice.choice(["", "\N{PILE OF POO}", "a\\b\t\n"]))
        where = psycopg.sql.SQL(' WHERE id = %s AND "wh.at" = %s')
        kind = self._dice.randint(0, 9)
        if kind == 0:
            self._connection.execute(psycopg.sql.SQL("TRUNCATE {}").format(self._strange))
        elif kind < 3:
            self._connection.execute(psycopg.sql.SQL("DELETE FROM {}").format(self._strange) + where, key)
        else:
            insert = psycopg.sql.SQL(
                'INSERT INTO {} VALUES (%s, %s, %s) ON CONFLICT (id, "wh.at") DO UPDATE SET "%%s" = NULL'
            )
            self._connection.execute(insert.format(self._strange), [*key, secrets.token_hex(4)])


class Watching:
    """Reads the sum of all balances at the replica as often as it can, and keeps what it saw."""

    def __init__(self, dsn: str) -> None:  # noqa: F811
        self._dsn = dsn
        self._stop = threading.Event()
        self.seen: set[tuple[Any, ...]] = set()
        self.looks = 0
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not self._stop.wait(0.002):
                if connection.execute("SELECT to_regclass('public.accounts') IS NOT NULL").fetchone() == (True,):
                    row = connection.execute("SELECT count(*), sum(balance)::text FROM public.accounts").fetchone()
                    assert row is not None
                    self.seen.add(row)
                    self.looks += 1


@pytest.fixture
def target(server: EmbeddedPostgres) -> Iterator[str]:  # noqa: F811
    name = f"target_{secrets.token_hex(6)}"
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        yield f"{server.dsn.rpartition('/')[0]}/{name}"
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def dice() -> random.Random:
    seed = int(os.environ.get("TEST_SEED") or secrets.randbits(32))
    print(f"TEST_SEED={seed}")
    return random.Random(seed)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_replica_ends_equal_and_is_whole_at_every_commit(
    dsn: str,  # noqa: F811
    target: str,
    tmp_path: Path,
    dice: random.Random,
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environ = {**os.environ, "WATCHER_SOURCE__DSN": dsn, "REPLICA_DSN": target}
    with psycopg.connect(dsn, autocommit=True) as source, psycopg.connect(target, autocommit=True) as there:
        source.execute(TABLES.encode())
        with Running(tmp_path, environ, program=program) as first:
            first.wait_for_streaming(source)
            first.end()
        source.execute(f"INSERT INTO accounts SELECT n, 100, 'x' FROM generate_series(0, {ACCOUNTS - 1}) n".encode())
        source.execute(KINDS.encode())
        bank = Bank(source, dice)
        with Watching(target) as watching:
            for _ in range(KILLS):
                place = dice.choice(["replica.before_commit", "replica.after_commit", "delivery.before_cursor"])
                with Running(tmp_path, environ, f"{place}=kill@{dice.randint(1, 5)}", program=program) as running:
                    bank.run(dice.randint(1, 20))
                    for _ in range(dice.randint(0, 2)):
                        pause(dice.uniform(0, 0.5))
                        cut(there)
                    until(lambda: ends(running, bank), "its end by the probe", LIFE_SECONDS_MAX)
            with Running(tmp_path, environ, program=program) as last:
                bank.run(TRANSACTIONS)
                cut(there)
                source.execute("INSERT INTO done VALUES (1)")
                until(lambda: is_done(there) or last.ended, "catching up")
                assert last.end() == 0, last.log()[-3000:]
        assert folded(target) == folded(dsn)
        assert watching.seen <= {(0, None), (ACCOUNTS, f"{ACCOUNTS * 100}")}
        assert watching.looks > 20
        assert there.execute("SELECT count(*) FROM watcher.replica_late").fetchone() == (0,)


def ends(running: Running, bank: Bank) -> bool:
    """Give it something to do until it has ended."""
    bank.run(1)
    pause(0.02)
    return running.ended


def cut(there: psycopg.Connection[Any]) -> None:
    """End the session that writes the replica, between two of its statements or in one."""
    there.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'backend_watcher:replica' AND datname = current_database()"
    )


def is_done(there: psycopg.Connection[Any]) -> bool:
    known = there.execute("SELECT to_regclass('public.done') IS NOT NULL").fetchone() == (True,)
    return known and there.execute("SELECT count(*) FROM public.done").fetchone() == (1,)
