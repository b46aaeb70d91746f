"""`watcher journal`: copied, put back, and what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from backend_watcher.journal.lock import Lock
from backend_watcher.journal.sqlite import SqliteJournal
from backend_watcher.testing.chunks import ChunkMaker
from cli.commands import Done

Run = Callable[..., Done]


@pytest.fixture
def journal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The journal of the watcher `shop`, five blocks."""
    monkeypatch.setenv("WATCHER_NAME", "shop")

    async def write() -> None:
        journal = SqliteJournal(path)
        await journal.open()
        make = ChunkMaker()
        for _ in range(5):
            await journal.append(make())
        await journal.flush()
        await journal.close()

    path = folder / ".watcher" / "shop.journal"
    asyncio.run(write())
    return path


def test_it_is_copied_and_put_back(run: Run, journal: Path, folder: Path) -> None:
    assert "5 blocks" in run("journal", "backup", "copy").out
    plain = run("journal", "backup", "other", "--json").json
    assert (plain["file"], plain["blocks"], plain["aside"], plain["exit_code"]) == ("other", 5, None, 0)
    done = run("journal", "restore", "copy", "--yes", "shop")
    assert done.code == 0
    assert "the journal ends at" in done.out
    assert f"{journal}.replaced-1".endswith(done.out.splitlines()[1].removeprefix("the one before it is "))
    assert json.loads(run("status", "--json").out)["journal"]["blocks"] == 5


@pytest.mark.usefixtures("journal")
def test_a_name_that_is_taken_is_not_overwritten(run: Run, folder: Path) -> None:
    (folder / "copy").write_text("a letter")
    done = run("journal", "backup", "copy")
    assert done.code != 0
    assert "is there already" in done.err
    assert (folder / "copy").read_text() == "a letter"


@pytest.mark.usefixtures("journal")
def test_replacing_takes_the_name(run: Run) -> None:
    run("journal", "backup", "copy")
    for words in ((), ("--yes", "shops")):
        done = run("journal", "restore", "copy", *words)
        assert done.code == 2
        assert "--yes shop" in done.err
    missing = run("journal", "restore", "nothing", "--yes", "shop")
    assert missing.code == 2
    assert "there is no file nothing" in missing.err


def test_not_while_a_watcher_runs(run: Run, journal: Path) -> None:
    run("journal", "backup", "copy")
    lock = Lock(journal.with_name("shop.journal.lock"))
    done = run("journal", "restore", "copy", "--yes", "shop")
    lock.release()
    assert done.code != 0
    assert "has" in done.err
    assert "Stop the other instance" in done.err


def test_without_a_journal_there_is_nothing_to_copy(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHER_NAME", "shop")
    done = run("journal", "backup", "copy")
    assert done.code != 0
    assert "there is no journal" in done.err
    assert not (folder / "copy").exists()
