"""Thousands of tables and partitions, the widest table there can be, and the longest and oddest names."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.events.table import qualify
from backend_watcher.postgres import surroundings
from backend_watcher.postgres.connect import connect

from .results import Part
from .running import Running, environment, until
from .scale import repeats

PROGRAM = Path(__file__).parent / "many.py"
TABLES = repeats(150, 2000)
PARTITIONS = repeats(300, 10_000)
ROOTS = 10
COLUMNS = 1600
NAME_BYTES = 63
BATCH = 100
START_SECONDS_MAX = 30.0
LOOK_SECONDS_MAX = 1.0
"""The source is asked again and again; much longer would be a load."""

ODD_SCHEMA = 'a.b "c" 😀'
KEYWORDS = ("select", "table", "user", "Order", "null")
# Read without their quotes, these two would be one.
MISTAKABLE = (("x.y", "z"), ("x", "y.z"))

Name = tuple[str, str]


def odd_name(number: int) -> str:
    """Return a name of 63 bytes with everything in it that has to be quoted."""
    name = f'{number} "q".dot\'s \\ Größe 😀 %s {{}} -- '
    return name + "ü" * ((NAME_BYTES - len(name.encode())) // 2) + "x" * ((NAME_BYTES - len(name.encode())) % 2)


def names() -> Iterator[Name]:
    yield from MISTAKABLE
    yield from (("public", word) for word in KEYWORDS)
    for number in range(TABLES - len(KEYWORDS) - len(MISTAKABLE)):
        yield ("public", f"t{number}") if number % 2 else (ODD_SCHEMA, odd_name(number))


def written(name: Name) -> str:
    """Write a name as a person has to."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in name)


def batches(statements: Iterable[sql.Composable]) -> Iterator[sql.Composable]:
    statements = iter(statements)
    while batch := list(islice(statements, BATCH)):
        yield sql.SQL("; ").join(batch)


def make(connection: psycopg.Connection, wished: list[Name]) -> None:
    for schema in sorted({schema for schema, _ in wished} - {"public"}):
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    table = sql.SQL("CREATE TABLE {} (id int PRIMARY KEY, {} text)")
    for batch in batches(table.format(sql.Identifier(*name), sql.Identifier(odd_name(0))) for name in wished):
        connection.execute(batch)
    columns = sql.SQL(", ").join(sql.SQL("{} int2").format(sql.Identifier(f"c{n}")) for n in range(1, COLUMNS))
    connection.execute(sql.SQL("CREATE TABLE wide (id int PRIMARY KEY, {})").format(columns))
    for root in range(ROOTS):
        connection.execute(f"CREATE TABLE whole{root} (id int PRIMARY KEY, note text) PARTITION BY RANGE (id)".encode())
    part = sql.SQL("CREATE TABLE {} PARTITION OF {} FOR VALUES FROM ({}) TO ({})")
    for batch in batches(
        part.format(
            sql.Identifier(f"part {n}"), sql.Identifier(f"whole{n % ROOTS}"), sql.Literal(n), sql.Literal(n + 1)
        )
        for n in range(PARTITIONS)
    ):
        connection.execute(batch)


def write(connection: psycopg.Connection, wished: list[Name], key: int) -> Counter[tuple[str, int, int]]:
    """Insert a row into each table and each partition; return what has to be seen."""
    row = sql.SQL("INSERT INTO {} VALUES ({}, 'x')")
    for batch in batches(row.format(sql.Identifier(*name), sql.Literal(key)) for name in wished):
        connection.execute(batch)
    for root in range(ROOTS):
        numbers = f"generate_series({root}, {PARTITIONS - 1}, {ROOTS})"
        connection.execute(f"INSERT INTO whole{root} SELECT n, 'x' FROM {numbers} n".encode())
    connection.execute(f"INSERT INTO wide SELECT {key}, {', '.join(['7'] * (COLUMNS - 1))}")
    expected = Counter((qualify(*name), key, 2) for name in wished)
    expected.update((f"public.whole{n % ROOTS}", n, 2) for n in range(PARTITIONS))
    expected["public.wide", key, COLUMNS] = 1
    return expected


def seen(path: Path) -> Counter[tuple[str, int, int]]:
    if not path.exists():
        return Counter()
    return Counter((name, key, columns) for name, key, columns in map(json.loads, path.read_text().splitlines()))


async def look_seconds(dsn: str, wished: list[Name]) -> float:
    """Return how long the question takes that is asked of the source while a stream runs."""
    async with await connect(dsn, purpose="test") as connection:
        begun = time.monotonic()
        around = await surroundings.look(
            connection, slot="watcher_faults", pid=0, publication="watcher_faults", names=wished
        )
        took = time.monotonic() - begun
    assert len(around.tables) == len(wished)
    assert all(table.entries for table in around.tables)
    return took


@pytest.mark.slow
@pytest.mark.large
@pytest.mark.timeout(repeats(180, 1200))
@pytest.mark.scenario("16", "thousands of tables and partitions, odd names")
def test_all_of_them_are_watched(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    assert len(odd_name(1).encode()) == NAME_BYTES
    wished = list(names())
    watched = [*wished, ("public", "wide"), *(("public", f"whole{root}") for root in range(ROOTS))]
    (tmp_path / "tables.json").write_text(json.dumps([written(name) for name in watched]))
    environ = environment(tmp_path, postgres, FAULTS_TABLES=str(tmp_path / "tables.json"))
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        make(connection, wished)
        with Running(tmp_path, environ, program=PROGRAM) as running:
            first = running.wait_for_streaming(connection)
            assert not running.ended, running.log()[-3000:]
            expected = write(connection, wished, 1)
            until(lambda: seen(tmp_path / "seen") == expected or running.ended, "every row")
            look = asyncio.run(look_seconds(postgres.dsn, watched))
            assert running.end() == 0, running.log()[-3000:]
        with Running(tmp_path, environ, program=PROGRAM) as running:
            second = running.wait_for_streaming(connection)
            assert not running.ended, running.log()[-3000:]
            connection.execute("INSERT INTO wide (id) VALUES (2)")
            expected["public.wide", 2, COLUMNS] = 1
            until(lambda: seen(tmp_path / "seen") >= expected or running.ended, "the next row")
            assert running.end() == 0, running.log()[-3000:]
    result.add(runs=1, start_seconds_max=first, start_again_seconds_max=second, look_seconds_max=look)
    assert max(first, second) <= START_SECONDS_MAX
    assert look <= LOOK_SECONDS_MAX
