"""
A change that PostgreSQL cannot send: told of with its LSN, tried rarely, and given up by a person, which is kept.

Two causes: a character of EUC_JP that has no place in UTF-8 (cheap), and a bytea whose text is larger than a gigabyte,
which is more than PostgreSQL's memory takes for one value (600 MB, in the full form).
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.events.position import parse_lsn

from .judge import distinct
from .results import Part
from .running import PROGRAM, SLOT, Running, environment, until
from .scale import FULL
from .shell import SHELL_SECONDS_MAX
from .source import insert, seen
from .test_prepared import process
from .workload import SCHEMA

ALARM_SECONDS_MAX = 60.0
LARGE_BYTES = 600 << 20
TRIES_AT_ONCE_MAX = 2


def in_euc_jp(postgres: EmbeddedPostgres) -> str:
    """Make a database whose text need not have a place in UTF-8."""
    with psycopg.connect(postgres.dsn, autocommit=True) as admin:
        admin.execute("CREATE DATABASE jp ENCODING 'EUC_JP' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    dsn = postgres.dsn.rpartition("/")[0] + "/jp"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(SCHEMA)
    return dsn


def large(postgres: EmbeddedPostgres) -> str:
    """Let items hold large values."""
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE items ALTER note TYPE bytea USING note::bytea")
    return postgres.dsn


CAUSES: dict[str, tuple[Callable[[EmbeddedPostgres], str], str]] = {
    "a character that is not in UTF-8": (in_euc_jp, "INSERT INTO items VALUES (50, 1, E'\\365\\241')"),
    "a bytea of 600 MB": (
        large,
        f"INSERT INTO items VALUES (50, 1, convert_to(repeat('x', {LARGE_BYTES}), 'UTF8'))",
    ),
}


def shell(folder: Path, environ: dict[str, str], *words: str) -> str:
    """Call a command; its output."""
    command = [sys.executable, "-m", "backend_watcher", *words]
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=SHELL_SECONDS_MAX, check=False
    )
    return f"{done.returncode} {done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.scenario("37", "a change that PostgreSQL cannot send")
@pytest.mark.parametrize("postgres", [{"max_wal_size": "4GB", "fsync": "off"}], indirect=True, ids=[""])
@pytest.mark.parametrize(
    "cause",
    [pytest.param(one, marks=pytest.mark.large if "600" in one else ()) for one in CAUSES if FULL or "600" not in one],
)
@pytest.mark.parametrize("running_on", [True, False], ids=["while it runs", "when it is stopped"])
def test_it_is_told_and_can_be_given_up(
    postgres: EmbeddedPostgres, tmp_path: Path, result: Part, cause: str, running_on: bool
) -> None:
    prepare, bad = CAUSES[cause]
    dsn = prepare(postgres)
    environ = environment(tmp_path, dsn, FAULTS_SINKS="handler")
    with psycopg.connect(dsn, autocommit=True) as connection:
        with Running(tmp_path, environ) as running:
            running.wait_for_streaming(connection)
            insert(connection, 1, 10)
            until(lambda: seen(running) >= 10, "delivery")
            with connection.transaction():
                connection.execute("INSERT INTO items VALUES (20, 1, 'y')")
                connection.execute(bad.encode())
                connection.execute("INSERT INTO items VALUES (21, 1, 'y')")
            took = until(
                lambda: process(tmp_path, environ)["source_state"] == "undecodable", "the alarm", ALARM_SECONDS_MAX
            )
            insert(connection, 101, 110)
            until(lambda: "again in 900 s" in running.log(), "the second try")
            found = re.search(r"watcher skip ([0-9A-F/]+) --reason", str(process(tmp_path, environ)["detail"]))
            assert found is not None
            tries = postgres.log_path.read_text().count("in the change callback, associated LSN")
            assert tries <= TRIES_AT_ONCE_MAX
            assert "stuck at the transaction" in shell(
                tmp_path, environ, "skip", "0/1", "--app", str(PROGRAM), "--reason", "x"
            )
            if not running_on:
                assert running.end() == 0
            said = shell(tmp_path, environ, "skip", found[1], "--app", str(PROGRAM), "--reason", "too large")
            assert said.startswith("0 "), said
            if running_on:
                until(lambda: seen(running) >= 21, "what comes after it")
                insert(connection, 111, 120)
                until(lambda: seen(running) >= 31, "what comes after it")
                assert running.end() == 0
        with Running(tmp_path, environ) as running:
            running.wait_for_streaming(connection)
            insert(connection, 121, 130)
            until(lambda: seen(running) >= (41 if running_on else 31), "what comes after it")
            assert running.end() == 0
        row = connection.execute(
            "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s", [SLOT]
        )
        assert parse_lsn(row.fetchone()[0]) > parse_lsn(found[1])
    assert "too large the transaction that commits at" in shell(tmp_path, environ, "audit", "--app", str(PROGRAM))
    # What came before it in its transaction was delivered, itself and what came after it was not.
    result.add(
        runs=1, lost=(41 if running_on else 31) - distinct(tmp_path / "seen"), alarm_seconds_max=took, tries_max=tries
    )
