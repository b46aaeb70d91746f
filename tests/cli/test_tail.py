"""`watcher tail`, on a real journal."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from backend_watcher.journal.sqlite import SqliteJournal
from backend_watcher.testing import builders
from backend_watcher.testing.chunks import ChunkMaker
from cli.commands import Done, command, environment

Run = Callable[..., Done]


@pytest.fixture
def journal(folder: Path) -> Path:
    """Fifteen changes, each third of them an order; found without any settings."""

    async def write() -> None:
        journal = SqliteJournal(path)
        await journal.open()
        products, orders = builders.table(), builders.table("public.orders", relation_oid=16385)
        make = ChunkMaker(products)
        for number in range(15):
            make.table = orders if number % 3 == 2 else products
            await journal.append(make(name="\x1b[31mx\x9by" if number == 14 else "x"))
        await journal.close()

    path = folder / ".watcher" / "shop.journal"
    asyncio.run(write())
    return path


def ids(done: Done) -> list[int]:
    assert (done.code, done.err) == (0, "")
    return [json.loads(line)["new"]["id"] for line in done.out.splitlines()]


@pytest.mark.usefixtures("journal")
def test_the_last_changes(run: Run) -> None:
    assert ids(run("tail", "--no-follow", "--json")) == list(range(6, 16))
    assert ids(run("tail", "--no-follow", "--json", "-n", "2")) == [14, 15]
    assert ids(run("tail", "--no-follow", "--json", "-n", "2", "orders")) == [12, 15]
    assert ids(run("tail", "--no-follow", "--json", "-n", "0")) == []


@pytest.mark.usefixtures("journal")
def test_from_a_position(run: Run) -> None:
    assert ids(run("tail", "--no-follow", "--json", "--from", "start")) == list(range(1, 16))
    first = json.loads(run("tail", "--no-follow", "--json", "--from", "start", "-n", "1").out)["position"]
    assert ids(run("tail", "--json", "--from", first, "-n", "3")) == [2, 3, 4]
    done = run("tail", "--from", "nonsense")
    assert (done.code, "--from: 'nonsense' is not a position" in done.err) == (2, True)
    assert run("tail", "a.b.c").code == 2


@pytest.mark.usefixtures("journal")
def test_lines_for_people(run: Run) -> None:
    line, last = run("tail", "--no-follow", "-n", "2").out.splitlines()
    assert line.split()[1:] == ["insert", "public.products", "id=14", 'name="x"', "stock=null"]
    assert "\x1b" not in last
    assert "\\u001b[31mx\N{REPLACEMENT CHARACTER}y" in last


def test_without_a_journal(run: Run, folder: Path) -> None:
    (folder / "watcher.toml").write_text('name = "shop"')
    done = run("tail")
    assert done.code == 75
    assert done.err.splitlines() == [
        "error: there is no journal at .watcher/shop.journal yet",
        "remedy: `watcher run` makes it.",
    ]


@pytest.mark.usefixtures("journal")
def test_following_ends_cleanly_with_ctrl_c(folder: Path) -> None:
    child = subprocess.Popen(
        command("tail", "--json", "-n", "1"),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert json.loads(child.stdout.readline())["new"]["id"] == 15
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out, err) == (0, b"", b"")
