"""The program of a process that runs functions: it loads what its parent loaded, and calls what it is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend_watcher.contracts import Receipt
from backend_watcher.errors import SinkUnavailable
from backend_watcher.service.build import build
from backend_watcher.service.config import load_config
from backend_watcher.service.load import load_watcher
from backend_watcher.sinks.process import ProcessHandler
from backend_watcher.sinks.process_pool import Workers
from backend_watcher.testing import builders
from backend_watcher.testing.conformance_sink import delete, insert, truncate, update
from sinks.workshop import lines, running, setup

TWO = """
@watcher.on("products")
async def first(change): note("first", os.getpid(), change.key[0])
@watcher.on("products", batch=10)
def second(changes): note("second", os.getpid(), *[c.key[0] for c in changes])
"""


async def test_functions_of_several_subscriptions_share_a_process(tmp_path: Path) -> None:
    workers = Workers(setup(tmp_path, TWO), 1)
    sinks = [
        ProcessHandler("first", workers, batch=False, timeout_seconds=30.0),
        ProcessHandler("second", workers, batch=True, timeout_seconds=30.0),
    ]
    for sink in sinks:
        await sink.open()
    for sink in sinks:
        assert await sink.write([insert(1, 1, "a"), insert(2, 2, "b")]) is Receipt.DURABLE
    for sink in sinks:
        await sink.close()
    assert [[line[0], *line[2:]] for line in lines(tmp_path)] == [["first", "1"], ["first", "2"], ["second", "1", "2"]]
    assert len({line[1] for line in lines(tmp_path)}) == 1


async def test_changes_arrive_as_they_are(tmp_path: Path) -> None:
    program = """
@watcher.on("products")
def work(change):
    row = change.row if change.code != 3 else {}
    t = change.transaction
    note(change.operation, change.event_id, t.xid, t.commit_micros, change.table.full_name, change.replayed,
         sorted(row.items()), change.key, change.key_before, change.size_bytes > 0)
"""
    other = builders.table("sales.orders", {"id": "int8", "total": "numeric"})
    changes = [
        insert(1, 1, "a"),
        update(2, 5, "b", 1),
        delete(3, 5),
        truncate(4),
        builders.change("read", other, new={"id": 7, "total": "1.50"}, lsn=5, ordinal=3).as_replayed(),
    ]
    async with running(tmp_path, program) as sink:
        await sink.write(changes)

    def told(change) -> str:
        row = change.row if change.code != 3 else {}
        t = change.transaction
        words = (change.operation, change.event_id, t.xid, t.commit_micros, change.table.full_name, change.replayed)
        return " ".join(map(str, (*words, sorted(row.items()), change.key, change.key_before, True)))

    assert [" ".join(line) for line in lines(tmp_path)] == [told(change) for change in changes]


async def test_a_program_that_runs_its_watcher_when_it_is_loaded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SinkUnavailable, match="runs its watcher while it is loaded"):
        async with running(tmp_path, "watcher.run()\n"):
            pass


async def test_it_finds_modules_where_its_parent_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "far_away.py").write_text("WORD = 'found'\n")
    monkeypatch.syspath_prepend(tmp_path / "far")
    program = "import far_away\n@watcher.on('x')\ndef work(change): note(far_away.WORD)\n"
    async with running(tmp_path, program) as sink:
        await sink.write([insert(1, 1, "a")])
    assert lines(tmp_path) == [["found"]]


async def test_a_whole_subscription_is_split_between_the_two(tmp_path: Path) -> None:
    program = """
@watcher.on("products", when=lambda c: c.new["stock"] == 0, run_in="process", processes=2, memory_bytes=1 << 30)
def work(change): note(change.new["name"])
@watcher.transform("products")
def louder(change): return change.replace(new={**change.new, "name": change.new["name"].upper()})
"""
    path = setup(tmp_path, program).target
    environ = {"WATCHER_JOURNAL__PATH": str(tmp_path / "j"), "DATABASE_URL": "postgresql://127.0.0.1/shop"}
    watcher = load_watcher(path)
    plan = build(load_config(None, environ, watcher=watcher), watcher, target=path)
    (subscription,) = plan.subscriptions
    assert subscription.transforms == ()
    assert not subscription.route.has_predicates
    assert subscription.sink.describe() == {
        "kind": "handler",
        "name": "work",
        "batch": False,
        "runs_in": "process",
        "processes": 2,
    }
    await subscription.sink.open()
    await subscription.sink.write([insert(1, 1, "a")])
    await subscription.sink.close()
    assert lines(tmp_path) == [["A"]]
