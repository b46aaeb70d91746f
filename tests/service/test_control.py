"""What a person can ask, on a real PostgreSQL and a real journal."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from backend_watcher.embedded import EmbeddedPostgres
from backend_watcher.errors import ConfigError, JournalError, PreflightFailed, SinkUnavailable, SourceUnavailable
from backend_watcher.events.position import START, Position
from backend_watcher.journal.sqlite import SqliteJournal
from backend_watcher.journal.view import SqliteJournalView
from backend_watcher.postgres.findings import Report, fault, warning
from backend_watcher.service import control
from backend_watcher.service.config import Config, JournalConfig, SourceConfig, SubscriptionConfig
from backend_watcher.service.watcher import Watcher
from backend_watcher.sinks import Memory
from backend_watcher.testing import builders
from backend_watcher.testing.chunks import LSN_STEP, ChunkMaker, ids

COMMITTED_AT = 946_684_800.0
"""2000-01-01 00:00 UTC, when every transaction of a ChunkMaker commits."""


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres() as postgres:
        yield postgres


@pytest.fixture
def dsn(server: EmbeddedPostgres) -> Iterator[str]:
    name = sql.Identifier(f"test_{secrets.token_hex(6)}")
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(name))
        yield f"{server.dsn.rpartition('/')[0]}/{name.as_string().strip(chr(34))}"
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def config(
    folder: Path, dsn: str = "", *subscriptions: SubscriptionConfig, overrides: Mapping[str, Any] | None = None
) -> Config:
    return Config(
        "shop",
        SourceConfig(dsn, "watcher_shop", "watcher_shop", 10.0),
        JournalConfig(folder / "shop.journal", 1 << 30, 3600.0, 1 << 30),
        subscriptions,
        overrides or {},
    )


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


# check


async def test_check_looks_at_tables_and_sinks(tmp_path: Path, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE products (id int PRIMARY KEY, stock int)")
        connection.execute("CREATE TABLE orders (id int)")
    watcher = Watcher("shop")
    watcher.to(Memory(), table="products", update=["stock"], name="first")
    watcher.to(Memory(), table=["orders", "missing"], name="second")
    down = f"redis://127.0.0.1:{free_port()}/0"
    cache = SubscriptionConfig("cache", "redis_cache", ("products",), sink_options={"key": "p:{id}", "url": down})
    report = await control.check(config(tmp_path, dsn, cache), watcher)
    assert {finding.code for finding in report.faults} == {"table_missing", "replica_identity", "sink"}
    sink = next(finding for finding in report.faults if finding.code == "sink")
    assert (sink.subject, "does not" in sink.message, sink.remedy[:5]) == ("cache", True, "Start")
    assert "old_values" in {finding.code for finding in report.warnings}
    with pytest.raises(PreflightFailed) as caught:
        control.raise_if_faulty(report)
    assert caught.value.exit_code == 3
    assert len(caught.value.faults) == 3


async def test_check_of_what_does_not_answer(tmp_path: Path) -> None:
    watcher = Watcher("shop")
    watcher.to(Memory(), table="products", name="first")
    report = await control.check(config(tmp_path, f"postgresql://u@127.0.0.1:{free_port()}/x"), watcher)
    with pytest.raises(SourceUnavailable) as caught:
        control.raise_if_faulty(report)
    assert caught.value.exit_code == 75


def test_the_gravest_fault_decides_the_exit_code() -> None:
    sink, lost = fault("sink", "a", "down", "start it"), fault("slot_lost", "s", "lost", "drop it")
    wal = fault("wal_level", "server", "replica", "set it")
    control.raise_if_faulty(Report((warning("superuser", "r", "m", "x"),)))
    with pytest.raises(SinkUnavailable, match="down") as caught:
        control.raise_if_faulty(Report((sink,)))
    assert (caught.value.exit_code, caught.value.remedy) == (75, "start it")
    for findings, code in (((sink, wal), 3), ((sink, wal, lost), 4)):
        with pytest.raises(PreflightFailed) as failed:
            control.raise_if_faulty(Report(findings))
        assert failed.value.exit_code == code
    assert PreflightFailed.exit_code == 3


# status


async def write(folder: Path, chunks: int, cursors: Mapping[str, int], notes: Mapping[str, Any]) -> ChunkMaker:
    """Make a journal of so many transactions of one row; cursors count transactions."""
    make = ChunkMaker()
    journal = SqliteJournal(folder / "shop.journal")
    await journal.open()
    begin = make.lsn
    for _ in range(chunks):
        await journal.append(make())
        await journal.flush()
    for name, count in cursors.items():
        journal.save_cursor(name, Position(begin + count * LSN_STEP, 0))
    for name, note in notes.items():
        await journal.set_note(name, json.dumps(note))
    await journal.close()
    return make


async def test_status_before_the_first_run(tmp_path: Path) -> None:
    found = await control.status(config(tmp_path, "", SubscriptionConfig("cache", "stdout", ("x",))))
    assert (found.journal, found.process, found.source) == (None, None, None)
    (cache,) = found.subscriptions
    assert (cache.name, cache.state, cache.lag_bytes, cache.cursor) == ("cache", "idle", None, None)


async def test_lag_is_what_the_journal_has_and_the_subscription_has_not(tmp_path: Path) -> None:
    await write(tmp_path, 5, {"done": 5, "behind": 2}, {})
    watcher = Watcher("shop")
    watcher.to(Memory(), table="products", name="fresh")
    found = await control.status(config(tmp_path), watcher, now=lambda: COMMITTED_AT + 7)
    lags = {one.name: (one.lag_bytes, one.lag_seconds) for one in found.subscriptions}
    # The journal is durable to the end of the fifth commit, 8 bytes after its record.
    assert lags == {"done": (0, 0.0), "behind": (3 * LSN_STEP + 8, 7.0), "fresh": (None, None)}
    assert found.journal is not None
    assert (found.journal.blocks, found.process) == (5, None)


async def test_notes_say_how_the_process_and_its_subscriptions_are(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    notes = {
        "process": {"pid": child.pid, "state": "running", "since": 5.0, "source_state": "waiting", "detail": "gone"},
        "subscription:cache": {"state": "retrying", "error": "SinkUnavailable: x", "attempt": 3, "since": 6.0},
    }
    await write(tmp_path, 1, {}, notes)
    found = await control.status(config(tmp_path))
    assert found.process == control.ProcessStatus(child.pid, True, "running", 5.0, "waiting", "gone")
    (cache,) = found.subscriptions
    assert (cache.state, cache.error, cache.attempt, cache.since) == ("retrying", "SinkUnavailable: x", 3, 6.0)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    found = await control.status(config(tmp_path))
    assert found.process is not None
    assert (found.process.running, found.process.state) == (False, "killed")
    assert found.subscriptions[0].state == "idle"


@pytest.mark.parametrize("note", ['"text"', "{", "[1]", '{"pid": "x"}', '{"pid": -1, "state": 3}'])
async def test_a_strange_note_is_no_traceback(tmp_path: Path, note: str) -> None:
    journal = SqliteJournal(tmp_path / "shop.journal")
    await journal.open()
    await journal.set_note("process", note)
    await journal.set_note("subscription:a", note)
    await journal.close()
    found = await control.status(config(tmp_path))
    assert found.process is None or not found.process.running
    assert [one.name for one in found.subscriptions] == ["a"]


def test_our_own_number_is_not_the_watchers() -> None:
    note = {"process": json.dumps({"pid": os.getpid(), "state": "running"})}
    process = control._process(note)
    assert process is not None
    assert not process.running


async def test_status_asks_the_source_for_the_slot(tmp_path: Path, dsn: str) -> None:
    found = await control.status(config(tmp_path, dsn))
    assert found.source is not None
    assert (found.source.reachable, found.source.slot) == (True, None)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_create_logical_replication_slot('watcher_shop', 'pgoutput')")
        found = await control.status(config(tmp_path, dsn))
        connection.execute("SELECT pg_drop_replication_slot('watcher_shop')")
    assert found.source is not None
    assert found.source.slot is not None
    slot = found.source.slot
    assert (slot.name, slot.active, slot.is_lost, slot.wal_status) == ("watcher_shop", False, False, "reserved")
    assert slot.confirmed_flush_lsn
    assert slot.wal_held_bytes is not None


async def test_status_without_the_source_says_why_and_goes_on(tmp_path: Path) -> None:
    await write(tmp_path, 1, {"a": 1}, {})
    found = await control.status(config(tmp_path, f"postgresql://u:hunter2@127.0.0.1:{free_port()}/x"))
    assert found.source is not None
    assert not found.source.reachable
    assert found.source.error is not None
    assert "hunter2" not in repr(found)
    assert [one.name for one in found.subscriptions] == ["a"]


# tail


def test_tail_needs_a_journal(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal at"):
        control.open_journal(config(tmp_path))


def test_tables_by_the_names_people_write() -> None:
    assert control.table_names(["products", "shop.orders"]) == {"public.products", "shop.orders"}
    with pytest.raises(ConfigError) as caught:
        control.table_names(["a.b.c", "ok", ""])
    assert len(caught.value.faults) == 2


async def two_tables(folder: Path) -> SqliteJournal:
    """Open a journal with ten products, and an order after each second of them (ids 1, 2, …, 15 over both)."""
    journal = SqliteJournal(folder / "shop.journal")
    await journal.open()
    products, orders = builders.table(), builders.table("public.orders", relation_oid=16385)
    make = ChunkMaker(products)
    for number in range(15):
        make.table = orders if number % 3 == 2 else products
        await journal.append(make())
    await journal.flush()
    return journal


async def test_tail_reads_some_tables_after_a_position(tmp_path: Path) -> None:
    journal = await two_tables(tmp_path)
    with SqliteJournalView(tmp_path / "shop.journal") as view:
        assert ids(list(control.tail(view))) == list(range(1, 16))
        assert ids(list(control.tail(view, frozenset({"public.orders"})))) == [3, 6, 9, 12, 15]
        fifth = list(control.tail(view))[4].position
        assert ids(list(control.tail(view, after=fifth))) == list(range(6, 16))
    await journal.close()


async def test_following_goes_on_with_what_comes(tmp_path: Path) -> None:
    journal = await two_tables(tmp_path)
    await journal.close()
    waits: list[float] = []

    with SqliteJournalView(tmp_path / "shop.journal") as view:

        def write_more(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                subprocess.run([sys.executable, "-c", MORE, str(tmp_path / "shop.journal")], check=True)

        changes = control.tail(view, follow=True, wait=write_more)
        assert ids([next(changes) for _ in range(16)])[-1] == 1
    assert waits == [0.1, 0.1, 0.1]


MORE = """
import asyncio, sys
from backend_watcher.journal.sqlite import SqliteJournal
from backend_watcher.testing.chunks import ChunkMaker

async def main():
    journal = SqliteJournal(sys.argv[1])
    await journal.open()
    await journal.append(ChunkMaker(lsn=0x100000)())
    await journal.close()

asyncio.run(main())
"""


async def test_where_the_last_changes_begin(tmp_path: Path) -> None:
    journal = await two_tables(tmp_path)
    with SqliteJournalView(tmp_path / "shop.journal") as view:
        for tables, count, expected in (
            (frozenset[str](), 3, [13, 14, 15]),
            (frozenset({"public.orders"}), 2, [12, 15]),
            (frozenset({"public.orders"}), 100, [3, 6, 9, 12, 15]),
            (frozenset[str](), 0, []),
            (frozenset({"public.nothing"}), 5, []),
        ):
            after = control.before_last(view, tables, count)
            assert ids(list(control.tail(view, tables, after=after))) == expected
    await journal.close()


async def test_where_the_last_changes_of_a_long_journal_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = SqliteJournal(tmp_path / "shop.journal")
    await journal.open()
    make = ChunkMaker(lsn=1 << 40)
    for _ in range(6):
        make.lsn += 1 << 20
        await journal.append(make())
    await journal.flush()
    with SqliteJournalView(tmp_path / "shop.journal") as view:
        after = control.before_last(view, frozenset(), 4)
        assert ids(list(control.tail(view, after=after))) == [3, 4, 5, 6]
        monkeypatch.setattr(control, "LOOK_BACK_BYTES_MAX", 1 << 21)
        found = ids(list(control.tail(view, after=control.before_last(view, frozenset(), 100))))
        assert found[-1] == 6
        assert 2 <= len(found) < 6
    await journal.close()


async def test_an_empty_journal_has_no_last_change(tmp_path: Path) -> None:
    await write(tmp_path, 0, {}, {})
    with SqliteJournalView(tmp_path / "shop.journal") as view:
        assert control.before_last(view, frozenset(), 10) == START
        assert list(control.tail(view)) == []
