"""The network between us and PostgreSQL: cut, reset, dark, slow, in pieces, spoilt."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.errors import ExitCode

from .judge import judge, read_seen
from .ledger import Ledger
from .proxy import Proxy
from .results import Part
from .running import Running, environment, pause, until
from .scale import dice, repeats
from .source import insert, seen, wait_while
from .workload import SCHEMA, Workload

INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
RECOVERY_SECONDS_MAX = 10.0
DARK_SECONDS_MAX = 30.0
FLAPS = repeats(3, 50)
FLAP_SECONDS = 2.0


def lost(running: Running) -> int:
    """How often the watcher has said that the source is away."""
    return running.log().count("source unavailable")


def flow(proxy: Proxy, connection: psycopg.Connection, running: Running, number: int) -> float:
    """Write a row, and return how long it takes to arrive."""
    before = seen(running)
    insert(connection, number, number)
    return until(lambda: seen(running) > before or running.ended, "a row", 60.0)


@pytest.mark.slow
@pytest.mark.timeout(repeats(240, 900))
@pytest.mark.scenario("20", "a network that fails")
def test_cut_reset_flapping_slow_and_in_pieces(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    rolls = dice("network")
    with (
        psycopg.connect(postgres.dsn, autocommit=True) as connection,
        Proxy(postgres.port, seed=rolls.random()) as proxy,
    ):
        ledger = Ledger(connection)
        with Running(tmp_path, environment(tmp_path, proxy.dsn(postgres.dsn))) as running:
            running.wait_for_streaming(connection)
            with Workload(postgres.dsn, rolls.random()) as workload:
                for name, fault, seconds in faults(proxy):
                    wait_while(0.5, running)
                    fault()
                    wait_while(seconds, running)
                    proxy.heal()
                    took = flow(proxy, connection, running, 1_000_000 + int(result.figures.get("runs", 0)))
                    print(f"{name}: a row arrives {took:.1f} s after it heals")
                    result.add(runs=1, recovery_seconds_max=took)
                    assert took <= RECOVERY_SECONDS_MAX, (name, running.log()[-2000:])
                workload.stop()
            facts = ledger.facts()
            until(lambda: seen(running) >= len(facts) or running.ended, "catching up")
            assert running.end() == 0, running.log()[-2000:]
        judge(facts, read_seen(tmp_path / "seen")).check(result)


def faults(proxy: Proxy) -> Iterator[tuple[str, Callable[[], object], float]]:
    def gone() -> None:
        proxy.refuse(True)
        proxy.reset()

    def slow() -> None:
        proxy.latency_seconds = 0.5

    def in_pieces() -> None:
        proxy.piece_bytes = 1

    yield "cut", proxy.cut, 0.0
    yield "reset", proxy.reset, 0.0
    for number in range(FLAPS):
        yield f"flap {number}", gone, FLAP_SECONDS
    yield "latency", slow, repeats(4, 30)
    yield "in pieces", in_pieces, repeats(3, 20)


@pytest.mark.slow
@pytest.mark.timeout(repeats(240, 600))
@pytest.mark.scenario("20", "a network that fails")
def test_a_black_hole_is_noticed(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection, Proxy(postgres.port) as proxy:
        ledger = Ledger(connection)
        with Running(tmp_path, environment(tmp_path, proxy.dsn(postgres.dsn))) as running:
            running.wait_for_streaming(connection)
            insert(connection, 1, 100)
            until(lambda: seen(running) >= 100, "delivery")
            proxy.blackhole()
            insert(connection, 101, 200)
            noticed = until(lambda: lost(running) or running.ended, "noticing", 60.0)
            pause(repeats(0, 300))
            proxy.heal()
            took = until(lambda: seen(running) >= 200 or running.ended, "the rest", 90.0)
            result.add(runs=1, noticed_seconds_max=noticed, recovery_seconds_max=took)
            assert took <= RECOVERY_SECONDS_MAX, running.log()[-2000:]
            facts = ledger.facts()
            assert running.end() == 0, running.log()[-2000:]
        judge(facts, read_seen(tmp_path / "seen")).check(result)
        assert noticed <= DARK_SECONDS_MAX


@pytest.fixture
def with_tls(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A server that speaks TLS, which the one in the wheel cannot, with a certificate that nobody checks."""
    if shutil.which("openssl") is None or not INSTALLED:
        pytest.skip("no PostgreSQL with TLS is installed")
    with EmbeddedPostgres(install_dir=INSTALLED[-1].parents[1]) as server:
        data = server.folder / "data"
        pair = {"server.key": tmp_path / "server.key", "server.crt": tmp_path / "server.crt"}
        arguments = ["-new", "-x509", "-days", "2", "-nodes", "-subj", "/CN=127.0.0.1", "-newkey", "rsa:2048"]
        arguments += ["-keyout", pair["server.key"], "-out", pair["server.crt"]]
        subprocess.run(["openssl", "req", *arguments], check=True, capture_output=True)
        owner = data.stat()
        for name, path in pair.items():
            shutil.copy(path, data / name)
            (data / name).chmod(0o600)
            shutil.chown(data / name, owner.st_uid, owner.st_gid)
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(SCHEMA)
            connection.execute("ALTER SYSTEM SET ssl = on")
            connection.execute("SELECT pg_reload_conf()")
        yield server


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.scenario("20", "a network that fails")
def test_spoilt_bytes_without_tls_end_in_no_crash(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    """Nothing in the protocol tells a wrong digit from a right one; a wrong message is noticed, and read again."""
    rolls = dice("spoilt without TLS")
    with (
        psycopg.connect(postgres.dsn, autocommit=True) as connection,
        Proxy(postgres.port, seed=rolls.random()) as proxy,
        Running(tmp_path, environment(tmp_path, proxy.dsn(postgres.dsn))) as running,
    ):
        running.wait_for_streaming(connection)
        with Workload(postgres.dsn, rolls.random()) as workload:
            proxy.corruption = 0.1
            until(lambda: proxy.corrupted >= repeats(3, 50) or running.ended, "spoilt bytes", 60.0)
            proxy.heal()
            workload.stop()
        if not running.ended:
            wait_while(3.0, running)
        code = running.end()
        assert code in (0, ExitCode.DATA_SAFETY, ExitCode.SOURCE_REFUSED), running.log()[-3000:]
        assert "Traceback" not in running.log()
        result.add(runs=1, spoilt_pieces=proxy.corrupted)


@pytest.mark.servers
@pytest.mark.slow
@pytest.mark.timeout(repeats(180, 600))
@pytest.mark.scenario("20", "a network that fails")
def test_spoilt_bytes_never_become_data(with_tls: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    """Under TLS every wrong byte is noticed. Without it nothing in the protocol could tell a wrong digit."""
    rolls = dice("spoilt")
    with (
        psycopg.connect(with_tls.dsn, autocommit=True) as connection,
        Proxy(with_tls.port, seed=rolls.random()) as proxy,
    ):
        ledger = Ledger(connection)
        dsn = proxy.dsn(with_tls.dsn) + "?sslmode=require"
        with Running(tmp_path, environment(tmp_path, dsn)) as running:
            running.wait_for_streaming(connection)
            with Workload(with_tls.dsn, rolls.random()) as workload:
                for _ in range(repeats(3, 30)):
                    proxy.corruption = 0.1
                    before = proxy.corrupted
                    until(lambda n=before: proxy.corrupted > n or running.ended, "a spoilt byte", 30.0)
                    wait_while(repeats(1, 3), running)
                    proxy.heal()
                    took = flow(proxy, connection, running, 1_000_000 + int(result.figures.get("runs", 0)))
                    result.add(runs=1, spoilt_pieces=proxy.corrupted - before, recovery_seconds_max=took)
                    assert took <= RECOVERY_SECONDS_MAX, running.log()[-2000:]
                workload.stop()
            facts = ledger.facts()
            until(lambda: seen(running) >= len(facts) or running.ended, "catching up")
            assert running.end() == 0, running.log()[-2000:]
        judge(facts, read_seen(tmp_path / "seen")).check(result)
