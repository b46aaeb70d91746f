"""Rows that were already there come right while others write the same keys: kills, text keys, commits seen late."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from backend_watcher.capture.backfill_jobs import all_backfills
from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey
from backend_watcher.errors import JournalError
from backend_watcher.journal.view import SqliteJournalView

from .results import Part
from .running import Running, environment, pause, until
from .sampler import Sampler
from .scale import dice, repeats
from .workload import Client, Workload

PROGRAM = Path(__file__).parent / "backfill_program.py"
TABLES = {"items": ("id",), "words": ("word",), "pairs": ("a", "b")}
CHUNK = 200
ROWS = repeats(4_000, 20_000)
EACH_PLACE = {"logical": repeats(1, 20), "outbox": repeats(1, 5)}
PLACES = (
    "backfill.before_mark",
    "backfill.before_placed",
    "backfill.placed_piece",
    "backfill.placed",
    "backfill.before_note",
    "backfill.after_note",
)
TRANSACTION_SECONDS_MAX = 5.0
LATE_ROUNDS = repeats(4, 100)
LATE_KEYS = 3000
LATE_SECONDS_MAX = repeats(1, 5)
SHELL_SECONDS_MAX = 60.0

SCHEMA = """
CREATE TABLE words (word text PRIMARY KEY, version bigint NOT NULL);
CREATE TABLE pairs (a numeric, b text, version bigint NOT NULL, PRIMARY KEY (a, b));
INSERT INTO items SELECT n, 0, repeat('x', n % 300) FROM generate_series(1, :rows) n;
INSERT INTO words SELECT (ARRAY['a', 'A', 'ä', 'Z', '-'])[n % 5 + 1] || n, 0 FROM generate_series(1, :rows / 4) n;
INSERT INTO pairs SELECT n / 7, chr(65 + n % 7) || n, 0 FROM generate_series(1, :rows / 4) n;
INSERT INTO pairs VALUES ('NaN', 'x', 0), ('Infinity', 'x', 0), ('-Infinity', 'x', 0);
"""
TURN = """
UPDATE items SET id = -id, version = version + 1
WHERE abs(id) = %(id)s AND NOT EXISTS (SELECT FROM items other WHERE other.id = -items.id)
"""
END = """
INSERT INTO words VALUES ('end', 0) ON CONFLICT (word) DO UPDATE SET version = words.version + 1 RETURNING version
"""
LATE = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND backend_type = 'client backend'"


def fill(connection: psycopg.Connection, rows: int) -> None:
    connection.execute(SCHEMA.replace(":rows", str(rows)))


def rewrite(connection: psycopg.Connection, client: Client) -> None:
    """W1 and W8 on rows that are being read: changed, deleted and made again, the key changed and changed back."""
    rolls = client.dice
    key = rolls.randrange(client.number, ROWS, 2) + 1
    with connection.transaction(force_rollback=rolls.random() < 0.1):
        row = client.row(key)
        what = rolls.random()
        if what < 0.4:
            connection.execute("UPDATE items SET version = version + 1 WHERE id = %(id)s", row)
        elif what < 0.6:
            connection.execute("DELETE FROM items WHERE id = %(id)s", row)
            if what < 0.5:
                connection.execute("INSERT INTO items VALUES (%(id)s, %(version)s, %(note)s)", row)
        elif what < 0.7:
            connection.execute(TURN, row)
        elif what < 0.85:
            connection.execute("UPDATE words SET version = version + 1 WHERE word LIKE %s", [f"_{key}"])
        else:
            connection.execute("UPDATE pairs SET version = version + 1 WHERE a = %s", [key % 500])


def differences(connection: psycopg.Connection, valkey: EmbeddedValkey) -> int:
    """How many rows of the cache are not as in the source; every row has to be there."""
    different = 0
    with redis.Redis.from_url(valkey.url) as client:
        for table, key in TABLES.items():
            names = sorted(client.scan_iter(f"{table}:*", count=1000))
            values = client.mget(names) if names else []
            cached = {
                name.decode("utf-8", "surrogateescape").partition(":")[2]: json.loads(value)["version"]
                for name, value in zip(names, values, strict=True)
                if value is not None
            }
            columns = " || ':' || ".join(f"{column}::text" for column in key)
            source = dict(connection.execute(f"SELECT {columns}, version FROM {table}").fetchall())
            different += sum(source.get(one) != cached.get(one) for one in source.keys() | cached.keys())
    return different


class Oldest(Sampler):
    """How old the oldest transaction of a backfill is."""

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self._connection = psycopg.connect(dsn, autocommit=True)
        self.seconds = 0.0

    def __exit__(self, kind: object, *rest: object) -> None:
        super().__exit__(kind, *rest)
        self._connection.close()

    def look(self) -> None:
        found = self._connection.execute(
            "SELECT extract(epoch FROM max(clock_timestamp() - xact_start))::float8 FROM pg_stat_activity"
            " WHERE application_name LIKE 'backend_watcher:backfill%'"
        ).fetchone()
        self.seconds = max(self.seconds, (found and found[0]) or 0.0)


def jobs(folder: Path, environ: Mapping[str, str]) -> list[dict[str, Any]]:
    return shell(folder, environ, "backfill", "list", "--json")["backfills"]


def shell(folder: Path, environ: Mapping[str, str], *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "backend_watcher", *words],
        cwd=folder,
        env={**environ, "WATCHER_APP": str(PROGRAM)},
        capture_output=True,
        text=True,
        timeout=SHELL_SECONDS_MAX,
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return json.loads(done.stdout)


def all_done(folder: Path, environ: Mapping[str, str]) -> bool:
    found = jobs(folder, environ)
    assert not [one for one in found if one["state"] == "failed"], found
    return bool(found) and all(one["state"] == "done" for one in found)


@pytest.mark.slow
@pytest.mark.large
@pytest.mark.timeout(repeats(240, 1500))
@pytest.mark.scenario("34", "backfill under load, killed at each place")
@pytest.mark.parametrize("kind", ["logical", "outbox"])
def test_a_backfill_is_killed_at_every_place(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part, kind: str
) -> None:
    rolls = dice(f"backfill, {kind}")
    environ = environment(tmp_path, postgres, valkey, FAULTS_CHUNK=str(CHUNK), WATCHER_SOURCE__KIND=kind)
    kills = 0
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        fill(connection, ROWS)
        if kind == "outbox":
            shell(tmp_path, environ, "outbox", "install", "--json")
        with Oldest(postgres.dsn) as oldest, Workload(postgres.dsn, rolls.random(), rewrite) as load:
            for place in PLACES * EACH_PLACE[kind]:
                probe = f"{place}=kill@{rolls.randint(1, 6)}"
                with Running(tmp_path, environ, probe, program=PROGRAM, often=True) as running:
                    until(lambda: running.ended or finished(running.journal), "a kill")
                    killed = running.ended
                    assert running.end(signal.SIGKILL) == -signal.SIGKILL, running.log()[-3000:]
                kills += killed
            with Running(tmp_path, environ, program=PROGRAM) as last:
                if kind == "logical":
                    result.add(recovery_seconds_max=last.wait_for_streaming(connection))
                until(lambda: all_done(tmp_path, environ), "the backfills")
                load.stop()
                until(lambda: differences(connection, valkey) == 0, "an equal cache")
                assert last.end() == 0, last.log()[-3000:]
        found = jobs(tmp_path, environ)
        result.add(
            runs=kills,
            lost=differences(connection, valkey),
            stale_left_out=sum(one["stale"] for one in found),
            transaction_seconds_max=round(oldest.seconds, 2),
        )
    # By each kill a table may have a chunk read twice, and no more.
    read = sum(one["rows"] for one in found if one["subscriptions"] == ["note"])
    again = len((tmp_path / "seen").read_text().split()) - read
    result.add(rows=read, read_again=again)
    assert 0 <= again <= (kills + 1) * 2 * CHUNK
    assert oldest.seconds <= TRANSACTION_SECONDS_MAX


def finished(journal: Path) -> bool:
    try:
        with SqliteJournalView(journal) as view:
            found = all_backfills(view.notes())
    except JournalError:
        return False  # it is just being made
    return bool(found) and not any(one.is_open for one in found)


@contextmanager
def commits_seen_late(dsn: str, rolls: random.Random) -> Iterator[None]:
    """Let every commit be in the stream up to some seconds before anybody sees it."""
    stopping = threading.Event()
    seed = rolls.random()

    def let_go() -> None:
        own = random.Random(seed)
        due: dict[int, float] = {}
        with psycopg.connect(dsn, autocommit=True) as connection:
            while True:
                waiting = {pid for (pid,) in connection.execute(LATE).fetchall()}
                due = {pid: due.get(pid, own.uniform(0, LATE_SECONDS_MAX)) - 0.02 for pid in waiting}
                for pid in [pid for pid in waiting if due[pid] <= 0 or stopping.is_set()]:
                    connection.execute("SELECT pg_cancel_backend(%s)", [pid])
                if stopping.is_set() and not waiting:
                    return
                pause(0.02)

    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'ghost'")
        connection.execute("SELECT pg_reload_conf()")
        thread = threading.Thread(target=let_go)
        thread.start()
        try:
            yield
        finally:
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")
            stopping.set()
            thread.join()


def late(connection: psycopg.Connection, client: Client) -> None:
    """Change a row; the commit is seen late."""
    key = client.dice.randrange(client.number, LATE_KEYS, 6) + 1
    row = client.row(key)
    if client.dice.random() < 0.2:
        connection.execute("DELETE FROM items WHERE id = %(id)s", row)
    else:
        connection.execute(
            "INSERT INTO items VALUES (%(id)s, %(version)s, %(note)s)"
            " ON CONFLICT (id) DO UPDATE SET version = items.version + 1",
            row,
        )


def wrong_after(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, folder: Path, rolls: random.Random, rounds: int, **more: str
) -> tuple[int, int]:
    """Read a table again and again while commits are seen late; return wrong rows, and those that were left out."""
    environ = environment(folder, postgres, valkey, FAULTS_CHUNK="100", **more)
    wrong = 0
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        fill(connection, LATE_KEYS)
        with Running(folder, environ, program=PROGRAM) as running:
            running.wait_for_streaming(connection)
            until(lambda: all_done(folder, environ), "the first backfills")
            for _ in range(rounds):
                load = Workload(postgres.dsn, rolls.random(), late, clients=6, pause_seconds=0)
                with commits_seen_late(postgres.dsn, rolls), load:
                    pause(0.2)
                    shell(folder, environ, "backfill", "start", "items", "--json")
                    # Commits that began before are waited for, one after the other.
                    until(lambda: all_done(folder, environ), "a backfill")
                    load.stop()
                wrong += settled_differences(connection, valkey, folder, environ)
            assert running.end() == 0, running.log()[-3000:]
        left_out = sum(one["stale"] for one in jobs(folder, environ))
    return wrong, left_out


def settled_differences(
    connection: psycopg.Connection, valkey: EmbeddedValkey, folder: Path, environ: Mapping[str, str]
) -> int:
    """How many rows are wrong once everything that was committed is delivered."""
    found = connection.execute(END).fetchone()
    assert found is not None
    with redis.Redis.from_url(valkey.url) as client:
        until(lambda: json.loads(client.get("words:end") or b'{"version": -1}')["version"] == found[0], "the end")
    behind = lambda: shell(folder, environ, "status", "--json")["subscriptions"]  # noqa: E731
    until(lambda: all(one["lag_bytes"] == 0 for one in behind()), "delivery")
    return differences(connection, valkey)


@pytest.mark.slow
@pytest.mark.large
@pytest.mark.timeout(repeats(240, 2400))
@pytest.mark.scenario("35", "commits that are seen late, under a backfill")
def test_a_commit_that_is_seen_late_is_never_overwritten(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part
) -> None:
    rolls = dice("late")
    wrong, left_out = wrong_after(postgres, valkey, tmp_path, rolls, LATE_ROUNDS)
    result.add(runs=LATE_ROUNDS, lost=wrong, stale_left_out=left_out)
    assert wrong == 0
    assert left_out > 0


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_without_the_filter_older_rows_overwrite_newer_ones(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    """The check of the test above can fail: this is what a plain watermark does."""
    wrong, _ = wrong_after(postgres, valkey, tmp_path, dice("unfiltered"), 2, FAULTS_UNFILTERED="1")
    assert wrong > 0
