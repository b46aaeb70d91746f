"""PostgreSQL shuts down, crashes, or ends our sessions: it never waits for us, and nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Self

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey

from .judge import cache_differences, judge, read_seen
from .ledger import Ledger
from .results import Part
from .running import Running, environment, pause, streams, until
from .scale import dice, repeats
from .source import INSERT, insert, seen, wait_while
from .workload import Workload

DOWN_SECONDS_MAX = 5.0
DRAIN_SECONDS = 22.0
IN_FLIGHT = 10_000
SIGNALS = {"fast": signal.SIGINT, "smart": signal.SIGTERM}
SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'backend_watcher%'"
RECOVERY_SECONDS_MAX = 10.0


def down(server: EmbeddedPostgres, number: int) -> float:
    """Tell the server to shut down; return how long it took to be gone."""
    begun = time.monotonic()
    os.kill(server.pid, number)
    until(lambda: not server.running, "shutting down", 60.0)
    return time.monotonic() - begun


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.scenario("19", "the server shuts down")
@pytest.mark.parametrize("mode", SIGNALS)
def test_with_a_slow_sink_and_much_in_flight(
    postgres: EmbeddedPostgres, tmp_path: Path, result: Part, mode: str
) -> None:
    environ = environment(tmp_path, postgres, FAULTS_DELAY="5")
    for number in range(repeats(1, 3)):
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            ledger = Ledger(connection)
            with Running(tmp_path, environ) as running:
                running.wait_for_streaming(connection)
                insert(connection, number * IN_FLIGHT + 1, (number + 1) * IN_FLIGHT)
                connection.close()
                took = down(postgres, SIGNALS[mode])
                result.add(runs=1, down_seconds_max=took)
                assert took <= DOWN_SECONDS_MAX, running.log()[-2000:]
                running.send(signal.SIGKILL)
        postgres.start()
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            ledger.use(connection)
            with Running(tmp_path, environ | {"FAULTS_DELAY": "0"}) as running:
                running.wait_for_streaming(connection)
                facts = ledger.facts()
                until(lambda facts=facts: seen(running) >= len(facts) or running.ended, "catching up")
                assert running.end() == 0
            judge(facts, read_seen(tmp_path / "seen")).check(result)
            ledger.drop()
        (tmp_path / "seen").unlink()


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.scenario("19", "the server shuts down")
@pytest.mark.parametrize("postgres", [{"log_connections": "on"}], indirect=True)
def test_while_it_drains_it_is_left_alone(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    with (
        psycopg.connect(postgres.dsn, autocommit=True) as stays,
        Running(tmp_path, environment(tmp_path, postgres)) as running,
    ):
        running.wait_for_streaming(stays)
        os.kill(postgres.pid, signal.SIGTERM)
        left = until(lambda: not streams(stays), "leaving", 30.0)
        refusals = attempts(postgres)
        wait_while(DRAIN_SECONDS, running)
        more = attempts(postgres) - refusals
        result.add(runs=1, left_seconds_max=left, attempts_in_22_seconds_max=more)
        assert left <= DOWN_SECONDS_MAX
        assert more <= DRAIN_SECONDS // 10 + 1
        stays.close()
        until(lambda: not postgres.running, "shutting down", 30.0)
        postgres.start()
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            until(lambda: streams(connection), "streaming again", 30.0)
        assert running.end() == 0


def attempts(server: EmbeddedPostgres) -> int:
    return server.log_path.read_text(errors="replace").count("the database system is shutting down")


@pytest.mark.slow
@pytest.mark.timeout(repeats(180, 600))
@pytest.mark.scenario("19", "the server shuts down")
def test_restarted_again_and_again_under_load(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part
) -> None:
    under_load(postgres, valkey, tmp_path, result, "restarts", repeats(3, 20), lambda: postgres.restart("fast"))


@pytest.mark.slow
@pytest.mark.timeout(repeats(180, 900))
@pytest.mark.scenario("21", "the server crashes, or ends our sessions")
def test_killed_again_and_again_under_load(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part
) -> None:
    def crash() -> None:
        postgres.kill()
        postgres.start()

    under_load(postgres, valkey, tmp_path, result, "crashes", repeats(3, 30), crash)


@pytest.mark.slow
@pytest.mark.timeout(repeats(180, 900))
@pytest.mark.scenario("21", "the server crashes, or ends our sessions")
@pytest.mark.parametrize("which", ["the walsender", "every session of ours"])
def test_sessions_ended_again_and_again_under_load(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part, which: str
) -> None:
    query = SESSIONS + (" AND backend_type = 'walsender'" if which == "the walsender" else "")

    def end() -> None:
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            connection.execute(query)
            until(lambda: not streams(connection), "an end", 10.0)

    under_load(postgres, valkey, tmp_path, result, which, repeats(5, 50), end)


def under_load(postgres, valkey, folder: Path, result: Part, name: str, times: int, fault) -> None:
    """Do something to the server again and again while it is written to; nothing is lost, and the cache is equal."""
    rolls = dice(name)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with Running(folder, environment(folder, postgres, valkey)) as running:
            running.wait_for_streaming(connection)
            with Workload(postgres.dsn, rolls.random(), patient=True) as workload:
                for _ in range(times):
                    wait_while(rolls.uniform(0.3, 1.0), running)
                    fault()
                    recovered = until(lambda: has_stream(postgres), "streaming again", 30.0)
                    result.add(runs=1, recovery_seconds_max=recovered)
                    assert recovered <= RECOVERY_SECONDS_MAX, running.log()[-2000:]
                workload.stop()
            with psycopg.connect(postgres.dsn, autocommit=True) as fresh:
                ledger.use(fresh)
                facts = ledger.facts()
                until(lambda: seen(running) >= len(facts) or running.ended, "catching up")
                assert running.end() == 0, running.log()[-2000:]
                judge(facts, read_seen(folder / "seen")).check(result)
                assert cache_differences(fresh, valkey.url) == 0


def has_stream(server: EmbeddedPostgres) -> bool:
    try:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            return streams(connection)
    except psycopg.OperationalError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.scenario("64", "made a synchronous standby")
def test_made_a_synchronous_standby_it_leaves(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    with (
        psycopg.connect(postgres.dsn, autocommit=True) as connection,
        Running(tmp_path, environment(tmp_path, postgres)) as running,
    ):
        running.wait_for_streaming(connection)
        insert(connection, 1, 10)
        until(lambda: seen(running) >= 10, "delivery")
        blocked = Committing(postgres.dsn)
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        connection.execute("SELECT pg_reload_conf()")
        begun = time.monotonic()
        with blocked:
            code = running.wait(30.0)
            took = time.monotonic() - begun
            assert code == 4, running.log()[-2000:]
            assert "synchronous" in running.log()
            # What waits now waits for nobody of ours.
            assert connection.execute("SELECT count(*) FROM pg_stat_replication").fetchone() == (0,)
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")
        result.add(runs=1, noticed_seconds_max=took, commit_seconds_max=blocked.slowest)
        assert took <= 30.0


class Committing:
    """An application that commits one row after the other; `slowest` is how long a commit took while we streamed."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.slowest = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(30)

    def _run(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            key = 1000
            while not self._stopping.is_set():
                key += 1
                begun = time.monotonic()
                connection.execute(INSERT, [key, key])
                self.slowest = max(self.slowest, time.monotonic() - begun)
                pause(0.05)
