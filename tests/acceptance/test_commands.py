"""
The real command line against real servers: what is wrong at the start is one clear line, a remedy and an exit code.

And it changes nothing on the source: publications and slots are the same before and after.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey
from cli.commands import command, environment, watcher

SLOTS_MAX = 5
LINE_SECONDS_MAX = 30

SETTINGS = """\
name = "shop"

[[subscription]]
name = "products"
sink = "stdout"
table = "products"
"""

CACHE = """
[[subscription]]
name = "cache"
sink = "redis_cache"
table = "products"
key = "product:{id}"
"""


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(settings={"max_replication_slots": str(SLOTS_MAX)}) as postgres:
        yield postgres


@pytest.fixture(scope="module")
def physical() -> Iterator[EmbeddedPostgres]:
    """A server as most are: not set up for logical decoding."""
    with EmbeddedPostgres(settings={"wal_level": "replica"}) as postgres:
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE products (id int PRIMARY KEY, name text)")
        yield postgres


@pytest.fixture
def dsn(server: EmbeddedPostgres) -> Iterator[str]:
    """A database with a table; it and every slot are gone afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    dsn = f"{server.dsn.rpartition('/')[0]}/{name}"
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE products (id int PRIMARY KEY, name text)")
        yield dsn
        admin.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "watcher.toml").write_text(SETTINGS)
    return tmp_path


def state_of(dsn: str) -> list[Any]:
    with psycopg.connect(dsn) as connection:
        return [
            connection.execute(query).fetchall()
            for query in (
                "SELECT pubname FROM pg_publication ORDER BY 1",
                "SELECT schemaname, tablename FROM pg_publication_tables ORDER BY 1, 2",
                "SELECT slot_name, confirmed_flush_lsn FROM pg_replication_slots ORDER BY 1",
            )
        ]


def refused(folder: Path, name: str, code: int, said: str, remedy: str, **variables: str) -> None:
    """Run a command that has to fail with one fault, in words and as JSON; nothing secret is in either."""
    done = watcher(folder, name, **variables)
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    remedies = [line for line in done.err.splitlines() if line.startswith("remedy: ")]
    assert done.code == code, done
    assert len(errors) == 1, done.err
    assert said in errors[0]
    assert len(remedies) == 1
    # A fault of the preflight may say its remedy in the line itself.
    assert remedy in errors[0] + remedies[0]
    assert "hunter2" not in done.out + done.err
    if name == "run":
        as_json = watcher(folder, name, "--json", **variables)
        found = as_json.json
        assert (as_json.code, found["exit_code"]) == (code, code)
        assert said in found["error"]["faults"][0]
        assert found["error"]["remedy"]
        assert "hunter2" not in as_json.out + as_json.err


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


both = pytest.mark.parametrize("name", ["check", "run"])


@both
def test_a_dsn_that_is_none(folder: Path, name: str) -> None:
    refused(
        folder, name, 2, "source.dsn: the DSN cannot be read", "postgresql://", DATABASE_URL="postgres//u:hunter2@h"
    )
    refused(folder, name, 2, "source.dsn: is missing", "WATCHER_SOURCE__DSN")


@both
def test_a_host_that_does_not_answer(folder: Path, name: str) -> None:
    dsn = f"postgresql://u:hunter2@127.0.0.1:{free_port()}/shop"
    refused(folder, name, 75, "does not answer", "Check that the server runs", DATABASE_URL=dsn)


@both
def test_a_wrong_password(folder: Path, name: str, dsn: str) -> None:
    before = state_of(dsn)
    login, _, address = dsn.rpartition("@")
    wrong = f"{login.rpartition(':')[0]}:hunter2@{address}"
    refused(folder, name, 3, "password authentication failed", "Correct the password in the DSN", DATABASE_URL=wrong)
    assert state_of(dsn) == before


@both
def test_wal_level_replica(folder: Path, name: str, physical: EmbeddedPostgres) -> None:
    before = state_of(physical.dsn)
    remedy = "ALTER SYSTEM SET wal_level = logical"
    refused(folder, name, 3, "wal_level is replica", remedy, DATABASE_URL=physical.dsn)
    assert state_of(physical.dsn) == before == [[], [], []]


@both
def test_no_free_slot(folder: Path, name: str, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for number in range(SLOTS_MAX):
            connection.execute("SELECT pg_create_physical_replication_slot(%s)", [f"taken_{number}"])
    before = state_of(dsn)
    remedy = "ALTER SYSTEM SET max_replication_slots = "
    refused(
        folder, name, 3, f"max_replication_slots is {SLOTS_MAX}, and {SLOTS_MAX} are in use", remedy, DATABASE_URL=dsn
    )
    assert state_of(dsn) == before
    assert len(before[2]) == SLOTS_MAX


@both
def test_a_missing_table(folder: Path, name: str, dsn: str) -> None:
    before = state_of(dsn)
    (folder / "watcher.toml").write_text(SETTINGS.replace('table = "products"', 'table = "product"'))
    refused(folder, name, 3, "table 'public.product' does not exist", "write public.products instead", DATABASE_URL=dsn)
    assert state_of(dsn) == before


@both
def test_a_table_without_a_key(folder: Path, name: str, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE lines (product int)")
    before = state_of(dsn)
    (folder / "watcher.toml").write_text(SETTINGS.replace('table = "products"', 'table = "lines"'))
    refused(folder, name, 3, "lines", "ALTER TABLE", DATABASE_URL=dsn)
    assert state_of(dsn) == before


@both
def test_an_unknown_setting(folder: Path, name: str, dsn: str) -> None:
    before = state_of(dsn)
    (folder / "watcher.toml").write_text(SETTINGS + "concurency = 2\n")
    said = "watcher.toml, line 7: subscription.products.concurency: unknown setting"
    refused(folder, name, 2, said, "did you mean 'concurrency'?", DATABASE_URL=dsn)
    assert state_of(dsn) == before


@both
def test_a_redis_that_is_down(folder: Path, name: str, dsn: str) -> None:
    before = state_of(dsn)
    port = free_port()
    (folder / "watcher.toml").write_text(f'{SETTINGS}{CACHE}url = "redis://:hunter2@127.0.0.1:{port}/0"\n')
    refused(folder, name, 75, f"127.0.0.1:{port}", f"Start the server at 127.0.0.1:{port}", DATABASE_URL=dsn)
    assert state_of(dsn) == before


@both
def test_a_program_that_is_broken(folder: Path, name: str, dsn: str) -> None:
    before = state_of(dsn)
    (folder / "app.py").write_text("from backend_watcher import Watcher\nwatcher = Wotcher('shop')\n")
    (folder / "watcher.toml").write_text('app = "app.py"\n')
    refused(folder, name, 2, "app.py:2: NameError: name 'Wotcher' is not defined", "Mend the program", DATABASE_URL=dsn)
    assert state_of(dsn) == before


# A run from its start to its end


class Lines:
    """The lines a process writes, waited for."""

    def __init__(self, child: subprocess.Popen[bytes], descriptor: int) -> None:
        self._child = child
        self._descriptor = descriptor
        self._rest = b""

    def until(self, word: str) -> str:
        """Return the first line from now on that has the word."""
        while True:
            line, newline, self._rest = self._rest.partition(b"\n")
            if not newline:
                self._rest = line
                ready, _, _ = select.select([self._descriptor], [], [], LINE_SECONDS_MAX)
                data = os.read(self._descriptor, 1 << 16) if ready else b""
                assert data, f"no line with {word!r}; exit code {self._child.poll()}, left: {self._rest!r}"
                self._rest += data
            elif word.encode() in line:
                return line.decode()


@contextmanager
def running(folder: Path, *words: str, **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], Lines, Lines]]:
    child = subprocess.Popen(
        command(*words),
        cwd=folder,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        yield child, Lines(child, child.stdout.fileno()), Lines(child, child.stderr.fileno())
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_run_delivers_shows_where_it_is_and_ends_cleanly(folder: Path, dsn: str, ending: signal.Signals) -> None:
    (folder / "app.py").write_text(
        "from backend_watcher import Change, Watcher\n"
        "watcher = Watcher('ignored')\n"
        "@watcher.on('products', name='twice')\n"
        "async def twice(change: Change) -> None:\n"
        "    print('handled', change.key, flush=True)\n"
    )
    (folder / "watcher.toml").write_text('app = "app.py"\n' + SETTINGS)
    with running(folder, "run", DATABASE_URL=dsn) as (child, out, err):
        assert json.loads(err.until("streaming"))["level"] == "info"
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("INSERT INTO products VALUES (7, 'kopi')")
        seen = {out.until("7"), out.until("7")}
        assert "handled (7,)" in seen
        (line,) = seen - {"handled (7,)"}
        assert json.loads(line)["new"] == {"id": 7, "name": "kopi"}
        with running(folder, "tail", "products", "--json", "-n", "1") as (_, tailed, _):
            assert json.loads(tailed.until("kopi"))["key"] == {"id": 7}
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("INSERT INTO products VALUES (8, 'teh')")
            assert json.loads(tailed.until("teh"))["key"] == {"id": 8}
        shown = watcher(folder, "status", "--json", DATABASE_URL=dsn).json
        assert (shown["process"]["running"], shown["process"]["pid"]) == (True, child.pid)
        assert {one["name"]: one["state"] for one in shown["subscriptions"]} == {
            "products": "running",
            "twice": "running",
        }
        assert shown["source"]["slot"]["active"]
        second = watcher(folder, "run", DATABASE_URL=dsn)
        assert (second.code, "locked" in second.err, "remedy: Stop the other instance" in second.err) == (
            75,
            True,
            True,
        )
        child.send_signal(ending)
        err.until("stopped")
        assert child.wait(30) == 0
    shown = watcher(folder, "status", "--json", DATABASE_URL=dsn).json
    assert (shown["process"]["running"], shown["process"]["state"]) == (False, "stopped")
    assert [one["lag_bytes"] for one in shown["subscriptions"]] == [0, 0]
    assert watcher(folder, "check", DATABASE_URL=dsn).code == 0


def test_a_redis_that_comes_back_is_shown_and_served(folder: Path, dsn: str) -> None:
    with EmbeddedValkey() as valkey:
        (folder / "watcher.toml").write_text(f'{SETTINGS}{CACHE}url = "{valkey.url}"\n')
        with running(folder, "run", DATABASE_URL=dsn) as (child, _, err):
            err.until("streaming")
            valkey.kill()
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("INSERT INTO products VALUES (1, 'kopi')")
            assert json.loads(err.until("delivery failed"))["subscription"] == "cache"
            while True:
                shown = watcher(folder, "status", "--json", DATABASE_URL=dsn).json
                (cache,) = (one for one in shown["subscriptions"] if one["name"] == "cache")
                if cache["state"] == "retrying":
                    break
            assert (cache["lag_bytes"] > 0, cache["lag_seconds"] > 0) == (True, True)
            assert cache["error"].startswith("SinkUnavailable")
            valkey.restart()
            err.until("delivers again")
            child.send_signal(signal.SIGTERM)
            assert child.wait(30) == 0
    shown = watcher(folder, "status", "--json", DATABASE_URL=dsn).json
    assert [one["lag_bytes"] for one in shown["subscriptions"]] == [0, 0]
