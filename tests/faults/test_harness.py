"""The harness itself: a judge that finds nothing wrong must be one that can."""

from __future__ import annotations

import json
import random
import signal
import socket
import threading
import time
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.errors import ExitCode

from .judge import Seen, broken_sums, judge
from .ledger import Fact, Ledger
from .proxy import Proxy
from .results import Results, merge
from .running import Running, environment, until
from .source import insert
from .workload import ACCOUNTS, BALANCE, Workload, delete_and_insert, hot_key, transfers, upserts

FACTS = [Fact("items", "insert", 1, 1, 0), Fact("items", "update", 1, 2, 0), Fact("items", "insert", 2, 1, 0)]
SEEN = [Seen(7, fact, (100, n)) for n, fact in enumerate(FACTS)]


def counts(seen: list[Seen]) -> tuple[int, int, int, int]:
    verdict = judge(FACTS, seen)
    return verdict.lost, verdict.phantoms, verdict.duplicates, verdict.order_violations


def test_the_judge_finds_what_is_wrong() -> None:
    assert counts(SEEN) == (0, 0, 0, 0)
    assert counts(SEEN[1:]) == (1, 0, 0, 0)
    assert counts([*SEEN, Seen(7, Fact("items", "insert", 3, 1, 0), (101, 0))]) == (0, 1, 0, 0)
    assert counts([*SEEN, SEEN[2]]) == (0, 0, 1, 0)
    assert counts([SEEN[1], SEEN[0], SEEN[2]]) == (0, 0, 0, 1)
    # After a crash another process may begin again before the end of the one before it.
    assert counts([*SEEN, *(seen._replace(pid=8) for seen in SEEN)]) == (0, 0, 3, 0)
    swapped = [Seen(7, FACTS[1], (100, 0)), Seen(7, FACTS[0], (100, 1)), SEEN[2]]
    assert counts(swapped) == (0, 0, 0, 2)
    with pytest.raises(AssertionError):
        judge(FACTS, SEEN[1:]).check()


def test_a_sum_that_is_broken_between_commits_is_found() -> None:
    moved = [
        Seen(7, Fact("checking", "update", 1, 1, BALANCE - 10), (100, 0)),
        Seen(7, Fact("savings", "update", 1, 1, BALANCE + 10), (100, 1)),
    ]
    assert broken_sums(moved) == 0
    assert broken_sums([moved[0], moved[1]._replace(position=(101, 0))]) == 1


@pytest.mark.timeout(120)
def test_the_ledger_knows_what_was_committed(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        for transact in (upserts, transfers, hot_key, delete_and_insert):
            with Workload(postgres.dsn, 1, transact) as workload:
                until(lambda load=workload: load.transactions >= 50, "transactions")
        facts = ledger.facts()
        rows: dict[tuple[str, int], int] = {}
        for fact in facts:
            rows[fact.table, fact.key] = fact.version
        for table in ("items", "checking", "savings"):
            found = dict(connection.execute(f"SELECT id, version FROM {table} WHERE version > 0").fetchall())
            assert found == {key: v for (name, key), v in rows.items() if name == table and v >= 0}
        (total,) = connection.execute(
            "SELECT (SELECT sum(balance) FROM checking) + sum(balance) FROM savings"
        ).fetchone()
        assert total == 2 * ACCOUNTS * BALANCE
        seen = [Seen(1, entry.fact, (entry.xid, n)) for n, entry in enumerate(ledger.entries)]
        assert {entry.fact.operation for entry in ledger.entries} == {"insert", "update", "delete"}
        assert judge(facts, seen).lost == 0
        ledger.drop()


def echo_server() -> socket.socket:
    listening = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        try:
            while data := connection.recv(65536):
                connection.sendall(data)
        except OSError:
            pass
        connection.close()

    def serve() -> None:
        try:
            while True:
                threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()
        except OSError:
            pass

    threading.Thread(target=serve, daemon=True).start()
    return listening


def said(connection: socket.socket, data: bytes, seconds: float = 10.0) -> bytes:
    connection.settimeout(seconds)
    connection.sendall(data)
    answer = b""
    while len(answer) < len(data):
        answer += connection.recv(65536) or pytest.fail("closed")
    return answer


def test_the_proxy_does_what_it_is_told() -> None:
    data = random.Random(1).randbytes(20_000)
    with echo_server() as server, Proxy(server.getsockname()[1]) as proxy:

        def connect() -> socket.socket:
            return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)

        with connect() as connection:
            assert said(connection, data) == data
            proxy.piece_bytes = 1
            assert said(connection, data[:500]) == data[:500]
            proxy.latency_seconds = 0.1
            begun = time.monotonic()
            assert said(connection, b"slow") == b"slow"
            assert time.monotonic() - begun >= 0.2
            proxy.heal()
            proxy.corruption = 1.0
            assert said(connection, data) != data
            proxy.heal()
            proxy.cut()
            assert connection.recv(1) == b""
        with connect() as connection:
            said(connection, b"there")
            proxy.reset()
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
        with connect() as dark:
            said(dark, b"there")
            proxy.blackhole()
            with pytest.raises(TimeoutError):
                said(dark, b"nothing", 0.3)
            proxy.heal()
            with connect() as connection:
                assert said(connection, data) == data
            with pytest.raises(TimeoutError):
                said(dark, b"still nothing", 0.3)
        proxy.refuse(True)
        with connect() as connection:
            assert connection.recv(1) == b""
        assert proxy.connections == 4


def test_parts_of_a_scenario_are_merged(tmp_path: Path) -> None:
    results = Results()
    for lost, seconds in ((0, 1.5), (0, 0.5)):
        scenario = results.of("2", "killed")
        scenario.passed += 1
        for name, value in {"runs": 3, "lost": lost, "recovery_seconds_max": seconds}.items():
            merge(scenario.figures, name, value)
    results.of("10", "skipped").skipped.append("only root")
    results.of("9", "failed").failed.append("test_it")
    results.write(tmp_path / "json")
    two, nine, ten = json.loads((tmp_path / "json").read_text())["scenarios"]
    assert (two["runs"], two["lost"], two["recovery_seconds_max"], two["pass"]) == (6, 0, 1.5, True)
    assert (nine["pass"], ten["pass"], ten["skipped"]) == (False, False, ["only root"])
    assert len(results.lines()) == 4
    results.of("2", "killed").figures["lost"] = 1
    assert results.as_json()[0]["pass"] is False


def test_what_another_process_has_found_is_put_to_it() -> None:
    one, other = Results(), Results()
    for results, seconds in ((one, 1.5), (other, 2.5)):
        scenario = results.of("2", "killed")
        scenario.passed += 1
        merge(scenario.figures, "runs", 3)
        merge(scenario.figures, "recovery_seconds_max", seconds)
    other.of("3", "bank").failed.append("test_it")
    one.add(json.loads(json.dumps(other.parts())))
    two, three = one.as_json()
    assert (two["runs"], two["recovery_seconds_max"], two["pass"]) == (6, 2.5, True)
    assert (three["failed"], three["pass"]) == (["test_it"], False)


@pytest.mark.timeout(120)
def test_one_that_is_forked_is_like_one_that_is_started(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    said: list[list[str]] = []
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        for name, often in (("started", False), ("forked", True)):
            (folder := tmp_path / name).mkdir()
            environ = environment(folder, postgres, FAULTS_NAME=name)
            with Running(folder, environ, often=often) as running:
                running.wait_for_streaming(connection)
                insert(connection, 1, 3) if often else insert(connection, 4, 6)
                running.wait_for_delivery()
                assert running.end() == 0
            said.append([json.loads(line)["event"] for line in running.log().splitlines()])
            with Running(folder, environ, "capture.received=kill", often=often) as killed:
                assert killed.wait() == -signal.SIGKILL
            with Running(folder, environ, program="nothing.py", often=often) as refused:
                assert refused.wait() == ExitCode.CONFIGURATION
            with Running(folder, environ, often=often) as running:
                assert running.end(signal.SIGKILL) == -signal.SIGKILL
                assert running.ended
    # Two threads speak, so their order differs.
    assert sorted(said[0]) == sorted(said[1])
