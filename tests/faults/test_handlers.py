"""A function that fails in whatever way costs its own poisoned row, and nobody else anything."""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.journal.view import SqliteJournalView

from .results import Part
from .running import Running, environment, pause, streams, until
from .scale import repeats

PROGRAM = Path(__file__).parent / "handlers.py"
KEYS = 20
GAP_SECONDS = 0.01
CALM = repeats(150, 2000)
AFTER = repeats(100, 2000)
PARK_SECONDS_MAX = 60.0
EXIT_SECONDS_MAX = 20.0
LATE_MS_MAX = 1000.0
"""Generous: the machine is shared, and processes are started all the time. The measured figures are in the table."""
FUNCTIONS = {
    "loop": {"raises", "waits", "exits", "recurses", "cancels"},
    "thread": {"raises", "waits", "computes", "exits", "recurses", "wrong_type"},
}
FUNCTIONS["process"] = FUNCTIONS["thread"] | {"ends", "is_killed", "faults_in_c", "cancels", "hogs"}
BLOCKS = "blocks_the_loop"
PUT = "INSERT INTO items VALUES (%s, %s, '') ON CONFLICT (id) DO UPDATE SET version = excluded.version"


class Load:
    """Rows with growing versions, one transaction each."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self.version = 0

    def put(self, count: int) -> None:
        for _ in range(count):
            self.version += 1
            self._connection.execute(PUT, [1 + self.version % KEYS, self.version])
            pause(GAP_SECONDS)

    def poison(self) -> None:
        self._connection.execute(PUT, [0, 0])


def read(folder: Path) -> dict[str, list[list[str]]]:
    """What each function has written down."""
    found: dict[str, list[list[str]]] = defaultdict(list)
    for line in (folder / "seen").read_text().split("\n")[:-1]:
        name, *rest = line.split()
        found[name].append(rest)
    return found


def held(running: Running, names: set[str]) -> dict[str, list[tuple[str, bool, int]]]:
    with SqliteJournalView(running.journal) as view:
        return {name: [(key.key, key.parked, key.attempts) for key in view.held_keys(name)] for name in names}


def p99(late: list[float]) -> float:
    return sorted(late)[int(len(late) * 0.99)]


@pytest.mark.slow
@pytest.mark.quiet
@pytest.mark.timeout(repeats(180, 900))
@pytest.mark.scenario("46", "functions that fail in every way")
@pytest.mark.parametrize("postgres", [{"wal_sender_timeout": "3s"}], indirect=True)
@pytest.mark.parametrize("form", FUNCTIONS)
def test_a_function_that_fails_costs_nobody_else(
    postgres: EmbeddedPostgres, tmp_path: Path, result: Part, form: str
) -> None:
    names = FUNCTIONS[form]
    environ = environment(tmp_path, postgres, FAULTS_FORM=form)
    workers = ("--workers", "2") if form == "process" else ()
    with (
        psycopg.connect(postgres.dsn, autocommit=True) as connection,
        Running(tmp_path, environ, "", *workers, program=PROGRAM) as running,
    ):
        running.wait_for_streaming(connection)
        (pid,) = connection.execute("SELECT pid FROM pg_stat_replication").fetchone()
        load = Load(connection)
        load.put(CALM)
        until(lambda: all(len(read(tmp_path)[name]) >= CALM for name in names), "all at work")
        load.poison()
        before = load.version
        begun = time.monotonic()
        while not all(keys and keys[0][1] for keys in held(running, names).values()):
            load.put(50)
            assert time.monotonic() - begun < PARK_SECONDS_MAX, (held(running, names), running.log()[-3000:])
        parked_seconds = time.monotonic() - begun
        load.put(AFTER)
        until(lambda: all(len(read(tmp_path)[name]) >= load.version for name in names), "the other rows")
        assert streams(connection)
        assert connection.execute("SELECT pid FROM pg_stat_replication").fetchone() == (pid,), "another walsender"
        assert held(running, names) == {name: [('{"id":0}', True, 3)] for name in names}
        # The one whose loop is blocked for ever could only be drained in vain.
        begun = time.monotonic()
        assert running.end(signal.SIGKILL if form == "loop" else signal.SIGTERM) in (0, -signal.SIGKILL)
        ended_seconds = time.monotonic() - begun
    said = read(tmp_path)
    owed = set(range(1, load.version + 1))
    lost = sum(len(owed - {int(version) for _, version, *_ in said[name]}) for name in (*names, "quick"))
    late = [(int(version), float(ms)) for key, version, ms in said["quick"] if key != "0"]
    calm = p99([ms for version, ms in late if KEYS < version <= CALM])
    stormy = p99([ms for version, ms in late if version > before])
    result.add(
        runs=1,
        lost=lost,
        parked=len(names),
        **{
            f"{form}_p99_calm_ms_max": calm,
            f"{form}_p99_ms_max": stormy,
            f"{form}_ratio_max": stormy / calm,
            "parked_seconds_max": parked_seconds,
            "exit_seconds_max": ended_seconds,
        },
    )
    assert lost == 0
    assert not orphans(tmp_path)
    assert stormy <= LATE_MS_MAX
    assert ended_seconds <= EXIT_SECONDS_MAX
    assert postgres.log_path.read_text().count("terminating walsender") == 0


def orphans(folder: Path) -> list[str]:
    """Processes of the run that are still there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            if b"backend_watcher.service.worker" in command and (process / "cwd").resolve() == folder.resolve():
                found.append(process.name)
        except OSError:
            continue
    return found


HANGS = """
import threading
from backend_watcher import Watcher
watcher = Watcher("faults")

@watcher.on("items", timeout_seconds=3600)
def note(change):
    print("at it", flush=True)
    threading.Event().wait()
"""


@pytest.mark.slow
@pytest.mark.scenario("46", "functions that fail in every way")
def test_a_plain_function_that_never_ends_does_not_keep_the_process(
    postgres: EmbeddedPostgres, tmp_path: Path, result: Part
) -> None:
    (tmp_path / "hangs.py").write_text(HANGS)
    with (
        psycopg.connect(postgres.dsn, autocommit=True) as connection,
        Running(tmp_path, environment(tmp_path, postgres), program="hangs.py") as running,
    ):
        running.wait_for_streaming(connection)
        connection.execute(PUT, [1, 1])
        until(lambda: "at it" in running.log())
        begun = time.monotonic()
        assert running.end(signal.SIGTERM) == 0
        took = time.monotonic() - begun
        result.add(runs=1, exit_seconds_max=took)
        assert took <= EXIT_SECONDS_MAX
        assert "ended in spite of functions that still run" in running.log()
