"""The outbox and notifications under fault: late commits, kills, cuts, poolers, full queues, bloat, an epoch's end."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.embedded.account import choose
from backend_watcher.embedded.install import find_postgres as install_of_postgres

from .judge import distinct, judge, read_seen
from .ledger import Ledger
from .pooler import Pooler
from .results import Part
from .running import PROGRAM, TIMED_EACH, Running, environment, pause, until
from .scale import dice, repeats
from .workload import SCHEMA, Client, Workload, mixed

KILLS = repeats(6, 50)
WRITERS = repeats(8, 32)
DELAY_SECONDS_MAX = repeats(200, 5000) / 1000
LONG_SECONDS = repeats(4, 60)
LATE_SECONDS = repeats(6, 90)
CUT_COMMITS = repeats(1500, 10_000)
TURNS = 3
BLOAT_EVENTS = repeats(150_000, 10_000_000)
PROBES = [
    "",
    "outbox.claimed=kill@{n}",
    "outbox.before_done=kill@{m}",
    "outbox.after_done=kill@{m}",
    "journal.before_commit=kill@{n}",
    "journal.after_commit=kill@{n}",
    "capture.before_append=kill@{n}",
    "delivery.after_write=kill@{n}",
]
READS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'backend_watcher:outbox'"
TABLES = ("items", "checking", "savings")


def surroundings(folder: Path, dsn: str, **more: str) -> dict[str, str]:
    return environment(folder, dsn, None, **{"WATCHER_SOURCE__KIND": "outbox", **more})


def watcher(folder: Path, environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "backend_watcher", *words]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False)


def install(folder: Path, environ: dict[str, str]) -> None:
    done = watcher(folder, environ, "outbox", "install", str(PROGRAM))
    assert done.returncode == 0, done.stderr


def reads(connection: psycopg.Connection) -> bool:
    return connection.execute(READS).fetchone() != (0,)


def end_judged(running: Running, tmp_path: Path, ledger: Ledger, result: Part, seconds: float = 120.0) -> float:
    """Wait until all is delivered, end it, and judge; return how long it took."""
    facts = ledger.facts()
    took = until(lambda: distinct(tmp_path / "seen") >= len(facts), "catching up", seconds)
    assert running.end(signal.SIGTERM) == 0
    judge(facts, read_seen(tmp_path / "seen")).check(result)
    return took


@pytest.mark.slow
@pytest.mark.timeout(repeats(240, 1500))
@pytest.mark.scenario("49", "outbox: late commits, rollbacks, a long transaction, kill -9")
def test_killed_under_load_nothing_is_lost(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    rolls = dice("outbox kills")
    environ = surroundings(tmp_path, postgres.dsn)
    install(tmp_path, environ)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with Workload(postgres.dsn, rolls.random(), mixed, clients=4) as workload:
            for number in range(KILLS):
                probe = rolls.choice(PROBES).format(n=rolls.randint(1, 40), m=rolls.randint(1, 3))
                timed = number % TIMED_EACH == 0
                running = Running(tmp_path, environ, probe, often=not timed)
                took = running.wait_for_delivery()
                if timed:
                    result.add(recovery_seconds_max=took)
                pause(rolls.uniform(0, 1.5))
                running.end(signal.SIGKILL)
            workload.stop()
        with Running(tmp_path, environ) as last:
            end_judged(last, tmp_path, ledger, result)
    result.add(runs=KILLS)


def late(connection: psycopg.Connection, client: Client) -> None:
    """One to three keys that all clients share, a delay before the commit, a fifth rolled back."""
    rolls = client.dice
    with connection.transaction(force_rollback=rolls.random() < 0.2):
        for key in sorted(rolls.sample(range(1, 41), rolls.randint(1, 3))):
            connection.execute("UPDATE checking SET version = version + 1 WHERE id = %s", [key])
        connection.execute("SELECT pg_sleep(%s)", [rolls.uniform(0, DELAY_SECONDS_MAX)])


@pytest.mark.slow
@pytest.mark.timeout(repeats(240, 900))
@pytest.mark.scenario("49", "outbox: late commits, rollbacks, a long transaction, kill -9")
def test_who_commits_late_is_not_skipped(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    rolls = dice("late commits")
    environ = surroundings(tmp_path, postgres.dsn)
    install(tmp_path, environ)
    with psycopg.connect(postgres.dsn, autocommit=True) as connection, psycopg.connect(postgres.dsn) as long:
        ledger = Ledger(connection)
        with Running(tmp_path, environ) as running:
            until(lambda: reads(connection), "reading")
            long.execute("INSERT INTO items VALUES (-1, 1, 'long')")
            begun = time.monotonic()
            with Workload(postgres.dsn, rolls.random(), late, clients=WRITERS) as workload:
                pause(LONG_SECONDS)
                held = time.monotonic() - begun
                long.commit()
                pause(max(0.0, LATE_SECONDS - LONG_SECONDS))
                workload.stop()
            took = end_judged(running, tmp_path, ledger, result)
    result.add(runs=1, longest_transaction_seconds_max=held, caught_up_seconds_max=took)
    assert took <= 1.0 + 4.0, "nothing waits for what is over"


@pytest.mark.slow
@pytest.mark.timeout(repeats(180, 900))
@pytest.mark.scenario("48", "notifications: connection cut, pooler in the path")
def test_cut_while_it_is_notified_nothing_is_missing(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    environ = surroundings(tmp_path, postgres.dsn)
    install(tmp_path, environ)
    rolls = dice("cuts")
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with Running(tmp_path, environ) as running, psycopg.connect(postgres.dsn, autocommit=True) as writer:
            until(lambda: reads(connection), "reading")
            for number in range(CUT_COMMITS):
                writer.execute("INSERT INTO items VALUES (%s, 1, 'x')", [number])
                if rolls.random() < 8 / CUT_COMMITS:
                    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
                    connection.execute(cut, ["backend_watcher:outbox"])
                    result.add(cuts=1)
            end_judged(running, tmp_path, ledger, result)
    result.add(runs=1)


@pytest.mark.scenario("48", "notifications: connection cut, pooler in the path")
@pytest.mark.parametrize("kind", ["outbox", "notify"])
def test_a_transaction_pooler_is_refused(postgres: EmbeddedPostgres, tmp_path: Path, result: Part, kind: str) -> None:
    install(tmp_path, surroundings(tmp_path, postgres.dsn))
    program = tmp_path / "shop.py"
    hears = "watcher.on('items')" if kind == "outbox" else "watcher.on_message('orders')"
    program.write_text(
        f"from backend_watcher import Watcher\nwatcher = Watcher('faults')\n@{hears}\nasync def f(x): pass\n"
    )
    more = {"WATCHER_SOURCE__KIND": kind} | ({"WATCHER_SOURCE__CHANNELS": '["orders"]'} if kind == "notify" else {})
    with Pooler(postgres.dsn) as pooler:
        done = watcher(tmp_path, environment(tmp_path, pooler.dsn, None, **more), "run", str(program))
    assert done.returncode == 3, done.stderr
    assert "a pooler in the way" in done.stderr
    result.add(runs=1, refused=1)


NOTIFIED = """
import os
from backend_watcher import Watcher
watcher = Watcher("faults")
seen = os.open(os.environ["FAULTS_SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@watcher.on_message("orders")
async def note(message):
    os.write(seen, message.content[:20] + b"\\n")
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.scenario("50", "the queue of notifications fills")
@pytest.mark.parametrize("postgres", [{"max_notify_queue_pages": "64"}], indirect=True, ids=["small queue"])
def test_a_queue_that_fills_is_told_of_and_is_never_our_doing(
    postgres: EmbeddedPostgres, tmp_path: Path, result: Part
) -> None:
    """Somebody else listens and sits in a transaction; ours is never in one, also while it is stopped."""
    (tmp_path / "notified.py").write_text(NOTIFIED)
    environ = environment(
        tmp_path, postgres, None, WATCHER_SOURCE__KIND="notify", WATCHER_SOURCE__CHANNELS='["orders"]'
    )
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'backend_watcher:listen'"
    usage = "SELECT pg_notification_queue_usage()"
    with (
        psycopg.connect(postgres.dsn, autocommit=True) as connection,
        psycopg.connect(postgres.dsn, autocommit=True) as writer,
        Running(tmp_path, environ, program=tmp_path / "notified.py") as running,
    ):
        until(lambda: connection.execute(ours).fetchone() != (0,), "listening")
        until(lambda: "source streaming" in running.log(), "streaming")
        assert "best effort" in running.log()
        for number in range(20):
            writer.execute("SELECT pg_notify('orders', %s)", [f"a{number}"])
        until(lambda: running.size() > 0 and (tmp_path / "seen").read_text().count("\n") == 20, "20 of them")
        running.send(signal.SIGSTOP)
        failed = in_transaction = 0
        for number in range(40):
            try:
                writer.execute("SELECT pg_notify('orders', %s)", [f"b{number:05}" + "x" * 7000])
            except psycopg.Error:
                failed += 1
            row = connection.execute(f"{ours} AND state LIKE 'idle in transaction%'").fetchone()
            in_transaction += row[0] if row else 0
        running.send(signal.SIGCONT)
        until(lambda: (tmp_path / "seen").read_text().count("\n") == 60, "all that were sent while it stood")
        with psycopg.connect(postgres.dsn) as sitting:
            sitting.execute("LISTEN orders")
            sitting.commit()
            sitting.execute("SELECT 1")  # in a transaction from here on
            number = 0
            while connection.execute(usage).fetchone()[0] < 0.3:  # type: ignore[index]
                writer.execute("SELECT pg_notify('orders', %s)", [f"c{number:05}" + "x" * 7000])
                number += 1
            until(lambda: "queue of notifications fills" in running.log(), "the alarm", 60)
        assert running.end(signal.SIGTERM) == 0
    result.add(runs=1, application_failures=failed, in_transaction=in_transaction)
    assert (failed, in_transaction) == (0, 0)


def transactions_per_second(dsn: str, clients: int, seconds: float) -> float:
    """Each client updates a row of its own and commits, again and again."""
    stop = threading.Event()
    counts = [0] * clients

    def write(client: int) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not stop.is_set():
                connection.execute("UPDATE checking SET version = version + 1 WHERE id = %s", [client + 1])
                counts[client] += 1

    threads = [threading.Thread(target=write, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    pause(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


@pytest.mark.slow
@pytest.mark.quiet
@pytest.mark.timeout(180)
@pytest.mark.scenario("51", "what the outbox and its notifications cost the application")
def test_what_it_costs_is_measured(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    """
    A figure, not a limit: it depends on the machine. `watcher check` recommends to leave NOTIFY out above a rate.

    By turns, after one that does not count: a cold server is slower, whatever it runs.
    """
    seconds, clients = repeats(1, 10), repeats(16, 64)
    environ = surroundings(tmp_path, postgres.dsn)
    rates: dict[str, list[float]] = {"plain": [], "true": [], "false": []}
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        for turn in range(TURNS + 1):
            for kind, found in rates.items():
                if kind != "plain":
                    install(tmp_path, {**environ, "WATCHER_SOURCE__OUTBOX_NOTIFY": kind})
                switch = "DISABLE" if kind == "plain" else "ENABLE"
                connection.execute(f"ALTER TABLE checking {switch} TRIGGER USER")
                rate = transactions_per_second(postgres.dsn, clients, seconds)
                if turn:
                    found.append(rate)
    plain, with_notify, without_notify = (statistics.median(found) for found in rates.values())
    result.add(
        runs=1,
        plain_per_second_max=round(plain),
        outbox_share_max=round(without_notify / plain, 2),
        outbox_with_notify_share_max=round(with_notify / plain, 2),
    )
    assert min(plain, with_notify, without_notify) > 0


@pytest.mark.slow
@pytest.mark.large
@pytest.mark.timeout(repeats(240, 5400))
@pytest.mark.scenario("52", "the outbox does not grow")
def test_what_is_read_takes_no_room(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    environ = surroundings(tmp_path, postgres.dsn, FAULTS_SINKS="none")
    program = tmp_path / "quiet.py"
    program.write_text(
        "from backend_watcher import Watcher\nwatcher = Watcher('faults')\n"
        "@watcher.on('items', batch=5000)\nasync def f(changes): pass\n"
    )
    done = watcher(tmp_path, environ, "outbox", "install", str(program))
    assert done.returncode == 0, done.stderr
    parts = "FROM pg_inherits WHERE inhparent = 'watcher.outbox'::regclass"
    size = f"SELECT sum(pg_total_relation_size(inhrelid))::bigint {parts}"
    behind = "SELECT count(*) FROM watcher.outbox_batch"
    sizes: list[int] = []
    waits: list[float] = []
    with (
        psycopg.connect(postgres.dsn, autocommit=True) as connection,
        psycopg.connect(postgres.dsn, autocommit=True) as writer,
        Running(tmp_path, environ, program=program) as running,
    ):
        until(lambda: reads(connection), "reading")
        written = 0
        while written < BLOAT_EVENTS:
            begun = time.monotonic()
            writer.execute("UPDATE savings SET version = version WHERE id = 1")
            waits.append(time.monotonic() - begun)
            writer.execute(
                "INSERT INTO items SELECT n, 1, repeat('x', 100) FROM generate_series(%s::int, %s::int) n",
                [written, written + 999],
            )
            written += 1000
            if written % 10_000 == 0:
                sizes.append(connection.execute(size).fetchone()[0])  # type: ignore[index]
                # The reader keeps up: what is measured is what is forgotten, not what is late.
                until(lambda: connection.execute(behind).fetchone() == (0,), "all durable", 60)
        left = connection.execute(size).fetchone()[0]  # type: ignore[index]
        assert running.end(signal.SIGTERM) == 0
    half = len(sizes) // 2
    steady = max(sizes[:half])
    result.add(runs=1, events=written, steady_bytes_max=steady, most_bytes_max=max(sizes), wait_seconds_max=max(waits))
    assert max(sizes) <= 2 * steady
    assert left <= 2 * steady


LAST_XID = 1 << 32
"""Where the 32-bit part of transaction ids begins again, and the epoch goes on."""
XACT_SEGMENT = 1 << 20
"""How many transactions one file of pg_xact holds."""


def move_near_the_end(postgres: EmbeddedPostgres) -> None:
    """Let the cluster hand out the last thousand ids of its epoch from now on."""
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        (data,) = connection.execute("SHOW data_directory").fetchone()  # type: ignore[misc]
        for (database,) in connection.execute("SELECT datname FROM pg_database WHERE datallowconn").fetchall():
            with psycopg.connect(f"{postgres.dsn.rpartition('/')[0]}/{database}", autocommit=True) as one:
                one.execute("VACUUM (FREEZE)")
    postgres.stop()
    folder = Path(data)
    account = choose(owner=folder.stat().st_uid)
    first = LAST_XID - 1000
    segment = folder / "pg_xact" / f"{first // XACT_SEGMENT:04X}"
    segment.write_bytes(bytes(256 * 1024))
    os.chown(segment, folder.stat().st_uid, folder.stat().st_gid)
    tool = install_of_postgres(None).program("pg_resetwal")
    done = account.output_of(tool, "-x", str(first), "-D", str(folder))
    assert done is not None, "pg_resetwal"
    postgres.start()


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.scenario("66", "the end of an epoch of transaction ids")
def test_transaction_ids_that_begin_again_are_harmless(tmp_path: Path, result: Part) -> None:
    folder = Path(tempfile.mkdtemp(prefix="watcher-epoch-"))
    try:
        folder.chmod(0o755)
        with EmbeddedPostgres(folder / "one") as postgres:
            with psycopg.connect(postgres.dsn, autocommit=True) as connection:
                connection.execute(SCHEMA)
            move_near_the_end(postgres)
            judged_over_the_end(postgres, tmp_path, result)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def judged_over_the_end(postgres: EmbeddedPostgres, tmp_path: Path, result: Part) -> None:
    """Write, and kill the watcher, while the ids begin again."""
    rolls = dice("epoch")
    environ = surroundings(tmp_path, postgres.dsn)
    install(tmp_path, environ)
    xid = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        ledger = Ledger(connection)
        with psycopg.connect(postgres.dsn) as long, Running(tmp_path, environ) as running:
            until(lambda: reads(connection), "reading")
            before = connection.execute(xid).fetchone()[0]  # type: ignore[index]
            long.execute("INSERT INTO items VALUES (-1, 1, 'begun in the old epoch')")
            with Workload(postgres.dsn, rolls.random(), mixed, clients=4) as workload:
                until(lambda: connection.execute(xid).fetchone()[0] > LAST_XID + 300, "the next epoch")  # type: ignore[index]
                running.end(signal.SIGKILL)
                long.commit()
                workload.stop()
        with Running(tmp_path, environ) as last:
            end_judged(last, tmp_path, ledger, result)
    result.add(runs=1)
    assert LAST_XID - 1000 <= before < LAST_XID
