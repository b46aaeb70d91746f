"""`watcher backfill`, on a journal that nobody runs: what is asked for is kept until somebody does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from backend_watcher.capture.backfill_jobs import BackfillState, load_backfills, save_backfill
from backend_watcher.journal.sqlite import SqliteJournal
from cli.commands import Done

Run = Callable[..., Done]
SETTINGS = """
name = "shop"

[source]
dsn = "postgresql://127.0.0.1:1/shop"

[[subscription]]
name = "cache"
tables = ["orders", "sales.items"]
sink = "stdout"

[[subscription]]
name = "log"
tables = ["orders"]
sink = "stdout"
"""


@pytest.fixture(autouse=True)
def journal(folder: Path) -> Path:
    """The journal of a watcher that has two subscriptions, and does not run."""
    (folder / "watcher.toml").write_text(SETTINGS)
    path = folder / ".watcher" / "shop.journal"

    async def write() -> None:
        journal = SqliteJournal(path)
        await journal.open()
        for name in ("cache", "log"):
            journal.save_cursor(name, journal.last_position)
        await journal.close()

    asyncio.run(write())
    return path


def change(path: Path, number: int, **values: object) -> None:
    async def write() -> None:
        journal = SqliteJournal(path)
        await journal.open()
        (job,) = [one for one in await load_backfills(journal) if one.number == number]
        await save_backfill(journal, replace(job, **values))  # type: ignore[arg-type]
        await journal.close()

    asyncio.run(write())


def test_start_list_and_status(run: Run, journal: Path) -> None:
    assert run("backfill", "list").out == "there was no backfill\n"
    done = run("backfill", "start", "orders", "-s", "cache", "--rate", "500", "--reason", "new cache")
    assert (done.code, done.err) == (0, "")
    assert done.out == "backfill 1 (public.orders); `watcher backfill list` shows how far it is\n"
    change(
        journal,
        1,
        state=BackfillState.RUNNING,
        rows=1500,
        stale=500,
        estimated_rows=8000,
        seconds=10.0,
        detail="waiting",
    )
    head, line = run("backfill", "list").out.splitlines()
    assert head.split()[:5] == ["backfill", "table", "for", "state", "rows"]
    assert line.split() == ["1", "public.orders", "cache", "running", "1,500", "25%", "200/s", "30", "s", "waiting"]
    (found,) = run("backfill", "list", "--json").json["backfills"]
    assert (found["rows"], found["state"], found["by"] != "") == (1500, "running", True)
    assert line in run("status").out
    assert run("status", "--json").json["backfills"][0]["table"] == "public.orders"
    assert "backfill" in run("audit").out
    assert "new cache" in run("audit").out


def test_without_a_table_all_that_is_listened_to(run: Run) -> None:
    run("backfill", "start", "-s", "cache")
    run("backfill", "start")
    found = run("backfill", "list", "--json").json["backfills"]
    assert [(one["table"], one["subscriptions"]) for one in found] == [
        ("public.orders", ["cache"]),
        ("sales.items", ["cache"]),
        ("public.orders", []),
        ("sales.items", []),
    ]


def test_pause_resume_cancel(run: Run) -> None:
    run("backfill", "start", "orders")
    assert run("backfill", "pause", "1").out == "backfill 1 of public.orders: paused, 0 rows were read\n"
    assert run("backfill", "list", "--json").json["backfills"][0]["state"] == "paused"
    assert run("backfill", "resume", "1").out == "backfill 1 of public.orders: goes on, 0 rows were read\n"
    assert run("backfill", "cancel", "1", "--reason", "wrong table").code == 0
    done = run("backfill", "resume", "1")
    assert (done.code, "backfill 1 has ended: it is cancelled" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["start", "nowhere"], "no subscription listens to public.nowhere"),
        (["start", "orders", "-s", "nobody"], "subscription 'nobody' is unknown; there are: cache, log"),
        (["start", "orders", "--rate", "0"], "above 0"),
        (["pause", "7"], "there is no backfill 7"),
        (["pause", "x"], "valid integer"),
    ],
)
def test_wrong_words(run: Run, words: list[str], fault: str) -> None:
    done = run("backfill", *words)
    assert (done.code, fault in done.err) == (2, True), done.err


def test_keys_and_conditions_are_kept(run: Run) -> None:
    run("backfill", "start", "orders", "--key", "7,a", "--key", "8,b", "--where", "shop = 7")
    (found,) = run("backfill", "list", "--json").json["backfills"]
    assert (found["keys"], found["where"]) == ([["7", "a"], ["8", "b"]], "shop = 7")


def test_waiting_ends_when_it_has_ended(run: Run, journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def end_it(_: float) -> None:
        change(journal, 1, state=BackfillState.FAILED, detail="nobody may read it")

    monkeypatch.setattr("backend_watcher.cli.backfill.time.sleep", end_it)
    done = run("backfill", "start", "orders", "--wait")
    assert done.code == 75
    assert "nobody may read it" in done.out
