"""`watcher pause`, `resume`, `replay`, `forget`, `audit`, on a journal that nobody runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from backend_watcher.capture.undecodable import NOTE, Undecodable
from backend_watcher.events.position import Position
from backend_watcher.journal.sqlite import SqliteJournal
from backend_watcher.journal.view import SqliteJournalView
from backend_watcher.testing.chunks import ChunkMaker
from cli.commands import Done

Run = Callable[..., Done]


@pytest.fixture(autouse=True)
def journal(folder: Path) -> Path:
    """Five changes, all delivered to `cache`."""

    async def write() -> None:
        journal = SqliteJournal(path)
        await journal.open()
        make = ChunkMaker()
        for _ in range(5):
            await journal.append(make())
        await journal.flush()
        journal.save_cursor("cache", journal.last_position)
        await journal.close()

    path = folder / ".watcher" / "shop.journal"
    asyncio.run(write())
    return path


def refused(done: Done) -> str:
    assert done.code == 2
    return done.err


def test_a_pause_lasts_until_the_resume(run: Run) -> None:
    assert run("pause", "cache", "--reason", "lunch").out == "cache: paused\n"
    (one,) = json.loads(run("status", "--json").out)["subscriptions"]
    assert (one["state"], one["detail"].endswith(": lunch")) == ("paused", True)
    assert run("resume", "cache").out == "cache: resumed\n"
    (one,) = json.loads(run("status", "--json").out)["subscriptions"]
    assert one["state"] == "idle"


def test_an_unknown_subscription_is_refused_with_those_there_are(run: Run) -> None:
    assert "subscription 'cash' is unknown; there are: cache" in refused(run("pause", "cash"))


def test_a_replay_is_kept_for_the_next_start(run: Run, journal: Path) -> None:
    assert "replaying what was committed after" in run("replay", "cache", "--from", "start", "--key", "3").out
    with SqliteJournalView(journal) as view:
        note = json.loads(view.notes()["replay:cache"])
    assert (note["key"], note["after"], note["table"]) == ("3", [0, -1], None)
    assert "is replaying already" in refused(run("replay", "cache", "--since", "1h"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "give one of --since and --from"),
        (("--since", "1h", "--from", "start"), "give one of --since and --from"),
        (("--since", "yesterday"), "--since: 'yesterday' is no moment"),
        (("--from", "nonsense", "--to", "0/1"), "--from: 'nonsense' is not a position"),
        (("--from", "FF/0:0"), "nothing to replay"),
        (("--from", "0/10FF:9"), "the journal begins at 0/1100:0"),
        (("--since", "2999-01-01"), "nothing to replay"),
        (("--from", "start", "--table", "a.b.c"), "a.b.c"),
    ],
)
def test_a_replay_of_nothing_is_refused(run: Run, words: tuple[str, ...], says: str) -> None:
    assert says in refused(run("replay", "cache", *words))


def test_a_replay_from_a_position_includes_it(run: Run, journal: Path) -> None:
    run("replay", "cache", "--from", "0/1300:0", "--to", "0/1400:0")
    with SqliteJournalView(journal) as view:
        note = json.loads(view.notes()["replay:cache"])
    assert (Position(*note["after"]), Position(*note["to"])) == (Position(0x1300, -1), Position(0x1400, 0))


def test_forgetting_takes_the_name_twice(run: Run) -> None:
    assert "If that is meant: `--yes cache`" in refused(run("forget", "cache"))
    assert "are forgotten" in run("forget", "cache", "--yes", "cache", "--reason", "gone").out
    assert json.loads(run("status", "--json").out)["subscriptions"] == []


def test_the_audit_says_who_did_what_and_why(run: Run) -> None:
    run("pause", "cache", "--reason", "lunch")
    run("resume", "cache")
    entries = json.loads(run("audit", "--json").out)["audit"]
    assert [(entry["action"], entry["subject"]) for entry in entries] == [("pause", "cache"), ("resume", "cache")]
    assert all(entry["actor"] for entry in entries)
    assert "lunch" in run("audit", "-n", "2").out.splitlines()[1]


def test_only_what_the_source_is_stuck_at_is_skipped(run: Run, journal: Path) -> None:
    async def get_stuck() -> None:
        there = SqliteJournal(journal)
        await there.open()
        await there.set_note(NOTE, Undecodable(0x10_0000, 0x10_0400, "no").to_note())
        await there.close()

    assert "stuck at no transaction" in refused(run("skip", "0/100400", "--reason", "x"))
    asyncio.run(get_stuck())
    assert "is not an LSN" in refused(run("skip", "nonsense", "--reason", "x"))
    assert "commits at 0/100400" in refused(run("skip", "0/100000", "--reason", "x"))
    assert "reason: is missing" in refused(run("skip", "0/100400"))
    assert "is skipped from its change at 0/100000 on" in run("skip", "0/100400", "--reason", "large").out
    (entry,) = json.loads(run("audit", "--json").out)["audit"]
    assert (entry["action"], entry["subject"]) == ("skip", "source")
    assert json.loads(run("status", "--json").out)["journal"]["durable_lsn"] == "0/100401"


def test_without_a_journal_there_is_nothing_to_steer(run: Run, journal: Path) -> None:
    for path in journal.parent.iterdir():
        path.unlink()
    done = run("pause", "cache")
    assert done.code != 0
    assert "remedy:" in done.err
