"""A large table is read while many transactions a second write the same keys, with a kill -9 now and then."""

from __future__ import annotations

import signal
import subprocess
import threading
from pathlib import Path

import psycopg
import pytest

from backend_watcher.capture.backfill_jobs import all_backfills
from backend_watcher.capture.pace import ROWS_MAX
from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.embedded.install import find_postgres
from backend_watcher.errors import JournalError
from backend_watcher.journal.view import SqliteJournalView

from .results import Part
from .running import Running, environment, until
from .sampler import Memory
from .scale import dice, repeats
from .test_backfill import TRANSACTION_SECONDS_MAX, Oldest

PROGRAM = Path(__file__).parent / "backfill_large_program.py"
ROWS = repeats(60_000, 5_000_000)
KILLS = repeats(2, 20)
RATE = repeats(300, 2_000)
CLIENTS = 4
CALM_SECONDS = repeats(3, 60)
CATCH_UP_SECONDS_MAX = repeats(120, 1800)
RSS_MIB_MAX = repeats(300, 200)

SCRIPTS = {
    "update": (8, "UPDATE items SET version = version + 1 WHERE id = :key;"),
    "insert": (1, "INSERT INTO items VALUES (:key, 0, 'new') ON CONFLICT (id) DO UPDATE SET note = 'again';"),
    "delete": (1, "DELETE FROM items WHERE id = :key;"),
}
DIGEST = "SELECT count(*), coalesce(sum(hashtextextended(i::text, 0)), 0) FROM items i"


class Load:
    """pgbench at a fixed rate, and how long its transactions took, from when each was due."""

    def __init__(self, dsn: str, folder: Path, name: str, seconds: float | None) -> None:
        self._folder = folder / name
        self._folder.mkdir()
        command = [str(find_postgres().program("pgbench")), "-n", "-c", str(CLIENTS), "-R", str(RATE), "-l"]
        command += ["-T", str(int(seconds if seconds is not None else 86_400))]
        for script, (weight, text) in SCRIPTS.items():
            (self._folder / f"{script}.sql").write_text(f"\\set key random(1, {ROWS})\n{text}\n")
            command += ["-f", f"{script}.sql@{weight}"]
        self._process = subprocess.Popen(
            [*command, dsn], cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def end(self) -> None:
        """End it now; what it was at is undone, or committed."""
        self._process.terminate()
        self._process.wait()

    def p95_ms(self) -> float:
        """Wait for its end, and return the 95th percentile."""
        self._process.wait()
        logs = self._folder.glob("pgbench_log*")
        # The last line of one that was ended may be half a line.
        lines = [line.split() for log in logs for line in log.read_text().splitlines()[:-1]]
        taken = sorted(int(line[2]) for line in lines if line[2].isdecimal())
        return taken[int(len(taken) * 0.95)] / 1000


def rows_read(journal: Path) -> dict[str, tuple[int, bool]]:
    """Return how many rows each backfill has put into the stream, and whether it is done."""
    try:
        with SqliteJournalView(journal) as view:
            found = all_backfills(view.notes())
    except JournalError:
        return {}  # it is just being made
    assert not [one for one in found if one.state == "failed"], found
    return {one.subscriptions[0]: (one.rows + one.stale, one.state == "done") for one in found}


@pytest.mark.slow
@pytest.mark.large
@pytest.mark.timeout(repeats(240, 5400))
@pytest.mark.scenario("34l", "a large table, many writers, kill -9")
@pytest.mark.parametrize("postgres", [{"max_wal_size": "8GB", "shared_buffers": "256MB"}], indirect=True, ids=[""])
def test_a_large_table_is_read_while_its_rows_are_written(
    postgres: EmbeddedPostgres, tmp_path: Path, result: Part
) -> None:
    rolls = dice("large backfill")
    with EmbeddedPostgres(settings={"max_wal_size": "8GB"}) as target:
        for dsn in (postgres.dsn, target.dsn):
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS items (id int PRIMARY KEY, version bigint NOT NULL, note text)"
                )
        environ = environment(tmp_path, postgres, FAULTS_REPLICA=target.dsn)
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            connection.execute("TRUNCATE items")
            connection.execute(f"INSERT INTO items SELECT n, 0, 'old' FROM generate_series(1, {ROWS}) n")
            connection.execute("VACUUM ANALYZE items")
        calm = Load(postgres.dsn, tmp_path, "calm", CALM_SECONDS).p95_ms()
        journal = tmp_path / ".watcher" / "faults.journal"
        # Each kill comes when so many rows more were read, so that all of them are in the middle of it.
        marks = sorted(rolls.uniform(0.02, 0.9) * ROWS for _ in range(KILLS))
        load = Load(postgres.dsn, tmp_path, "meanwhile", None)
        kills = 0
        pid = 0
        with Oldest(postgres.dsn) as oldest, Memory(lambda: pid) as memory:
            for mark in marks:
                with Running(tmp_path, environ, program=PROGRAM) as running:
                    pid = running.process.pid
                    until(
                        lambda mark=mark: min((rows for rows, _ in rows_read(journal).values()), default=0) >= mark,
                        "the next kill",
                        CATCH_UP_SECONDS_MAX,
                    )
                    threading.Event().wait(rolls.uniform(0, 0.3))
                    running.end(signal.SIGKILL)
                kills += 1
            with Running(tmp_path, environ, program=PROGRAM) as last:
                pid = last.process.pid
                until(
                    lambda: len(rows_read(journal)) == 2 and all(done for _, done in rows_read(journal).values()),
                    "the backfills",
                    CATCH_UP_SECONDS_MAX,
                )
                load.end()
                meanwhile = load.p95_ms()
                wanted = digest(postgres.dsn)
                took = until(lambda: digest(target.dsn) == wanted, "an equal replica", CATCH_UP_SECONDS_MAX)
                with SqliteJournalView(journal) as view:
                    (own,) = [one for one in all_backfills(view.notes()) if one.subscriptions == ("count",)]
                assert last.end() == 0, last.log()[-3000:]
    delivered = sum(map(int, (tmp_path / "seen").read_text().split()))
    result.add(
        runs=kills,
        rows=own.rows,
        read_again=delivered - own.rows,
        transaction_seconds_max=round(oldest.seconds, 2),
        p95_calm_ms_max=calm,
        p95_ms_max=meanwhile,
        rss_mib_max=memory.rss_max >> 20,
        rows_per_second_max=round(own.rows / max(own.seconds, 0.001)),
        caught_up_seconds_max=took,
    )
    # One chunk of rows may come twice by each kill, and a batch of the function.
    assert 0 <= delivered - own.rows <= (kills + 1) * (ROWS_MAX + 1000)
    assert oldest.seconds <= TRANSACTION_SECONDS_MAX
    assert memory.rss_max >> 20 <= RSS_MIB_MAX


def digest(dsn: str) -> object:
    with psycopg.connect(dsn) as connection:
        return connection.execute(DIGEST).fetchone()
