"""Two instances and more of one watcher: exactly one is active, and the next takes over soon."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres, EmbeddedValkey
from backend_watcher.errors import ExitCode

from .judge import cache_differences, distinct, judge, read_seen
from .ledger import Ledger
from .results import Part
from .running import Running, environment, pause, streams, until
from .scale import dice, repeats
from .workload import Workload

WALSENDERS = "SELECT count(*) FROM pg_stat_replication WHERE application_name LIKE 'backend_watcher%'"
RELEASED_SECONDS_MAX = 10.0
KILLED_SECONDS_MAX = 30.0
REFUSED_SECONDS_MAX = 20.0


class Standby:
    """Starts an instance again and again, as a service manager does, until one gets through."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._folder, self._environ = folder, environ
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._running: Running | None = None
        self.codes: list[int] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        with contextlib.suppress(ProcessLookupError):
            if self._running is not None:
                self._running.send(signal.SIGTERM)
        self._thread.join()

    @property
    def pid(self) -> int:
        return self._running.process.pid if self._running is not None else 0

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._running = Running(self._folder, self._environ, often=True)
            while not self._running.ended and not self._stopping.is_set():
                pause(0.05)
            self.codes.append(self._running.end(signal.SIGTERM))
            self._stopping.wait(0.2)


@contextlib.contextmanager
def instances(count: int, folder: Path, environ: dict[str, str]) -> Iterator[list[Running]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Running(folder, environ)) for _ in range(count)]


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.scenario("22", "several instances at once")
@pytest.mark.parametrize("count", [2, 10])
def test_of_several_at_once_one_is_active(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part, count: int
) -> None:
    environ = environment(tmp_path, postgres, valkey)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with instances(count, tmp_path, environ) as all_of_them:
            until(lambda: sum(one.ended for one in all_of_them) == count - 1, "one instance being left")
            (left,) = [one for one in all_of_them if not one.ended]
            left.wait_for_streaming(connection)
            assert {one.wait() for one in all_of_them if one is not left} == {ExitCode.TEMPORARY}
            assert "locked" in left.log()
            with Workload(postgres.dsn, dice("instances").random()) as workload:
                for _ in range(10):
                    pause(0.1)
                    assert connection.execute(WALSENDERS).fetchone() == (1,)
                workload.stop()
            facts = ledger.facts()
            until(lambda: distinct(tmp_path / "seen") >= len(facts), "catching up")
            assert left.end() == 0
        seen = read_seen(tmp_path / "seen")
        result.add(runs=1, instances_active_max=len({one.pid for one in seen}))
        assert {one.pid for one in seen} == {left.process.pid}
        verdict = judge(facts, seen)
        verdict.check(result)
        assert verdict.duplicates == 0


@pytest.mark.slow
@pytest.mark.timeout(repeats(180, 600))
@pytest.mark.scenario("22", "several instances at once")
def test_the_next_one_takes_over(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, result: Part
) -> None:
    environ = environment(tmp_path, postgres, valkey)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with Running(tmp_path, environ) as first:
            first.wait_for_streaming(connection)
            assert first.end() == 0
        with (
            Workload(postgres.dsn, dice("hand-over").random()) as workload,
            Standby(tmp_path, environ) as one,
            Standby(tmp_path, environ) as two,
        ):
            for number in [signal.SIGTERM, signal.SIGKILL] * repeats(2, 10):
                until(lambda: active(tmp_path, one, two), "an active instance")
                before = active(tmp_path, one, two)
                process = (one if before == one.pid else two)._running
                assert process is not None
                begun = time.monotonic()
                process.send(number)
                until(lambda before=before: last_pid(tmp_path) not in (0, before), "the next instance")
                took = time.monotonic() - begun
                result.add(runs=1, handover_seconds_max=took, recovery_seconds_max=took)
                assert took <= (RELEASED_SECONDS_MAX if number == signal.SIGTERM else KILLED_SECONDS_MAX)
                assert connection.execute(WALSENDERS).fetchone()[0] <= 1
            workload.stop()
            facts = ledger.facts()
            until(lambda: distinct(tmp_path / "seen") >= len(facts), "catching up")
        judge(facts, read_seen(tmp_path / "seen")).check(result)
        assert cache_differences(connection, valkey.url) == 0


def last_pid(folder: Path) -> int:
    """Who wrote the last delivery."""
    path = folder / "seen"
    if not path.exists() or path.stat().st_size == 0:
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().split(b"\n")[:-1]
    return int(lines[-1].split()[0])


def active(folder: Path, one: Standby, two: Standby) -> int:
    """The process that delivers now, 0 if there is none."""
    pid = last_pid(folder)
    return pid if pid in (one.pid, two.pid) else 0


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.scenario("22", "several instances at once")
def test_journals_of_their_own_do_not_share_a_slot(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    """On two machines there is no lock to share: the slot decides, and who does not know it does not deliver."""
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder in folders:
        folder.mkdir()
    with psycopg.connect(postgres.dsn, autocommit=True) as connection, contextlib.ExitStack() as stack:
        ledger = Ledger(connection)
        running = [stack.enter_context(Running(folder, environment(folder, postgres))) for folder in folders]
        until(lambda: sum(one.ended for one in running) == 2, "two being refused", REFUSED_SECONDS_MAX * 3)
        (left,) = [one for one in running if not one.ended]
        refused = [one for one in running if one.ended]
        assert {one.wait() for one in refused} <= {ExitCode.DATA_SAFETY, ExitCode.SOURCE_REFUSED}, refused[0].log()
        until(lambda: streams(connection), "streaming")
        with Workload(postgres.dsn, dice("folders").random()) as workload:
            pause(1.0)
            workload.stop()
        facts = ledger.facts()
        until(lambda: distinct(left.folder / "seen") >= len(facts), "catching up")
        assert left.end() == 0
        result.add(runs=1)
        judge(facts, read_seen(left.folder / "seen")).check(result)
        assert all(one.size() == 0 for one in refused)
