"""`watcher parked`, on a journal that nobody runs: what is held, tried again, and given up with a reason."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from backend_watcher.contracts import HeldChange
from backend_watcher.events.position import Position
from backend_watcher.journal.sqlite import SqliteJournal
from backend_watcher.testing import builders
from backend_watcher.testing.conformance_held import KEY
from cli.commands import Done

Run = Callable[..., Done]


@pytest.fixture(autouse=True)
def journal(folder: Path) -> Path:
    """Subscription `cache` holds product 1, parked with three changes, and product 2, which is being retried."""

    async def write() -> None:
        journal = SqliteJournal(path)
        await journal.open()
        journal.save_cursor("cache", Position(0x5000, 0))
        for key, numbers, due in ((1, (0, 1, 2), None), (2, (3,), 9e9)):
            held = [
                HeldChange(
                    key,
                    number,
                    builders.change(new={"id": key, "name": f"n{number}", "stock": 1}, lsn=0x1000 + number),
                )
                for number in numbers
            ]
            name = {("public.products", str(key).encode()): held[-1].change.position}
            journal.hold_changes("cache", held, replace(KEY, number=key, key=f'{{"id":{key}}}', keys=name, due_at=due))
        await journal.close()

    path = folder / ".watcher" / "shop.journal"
    asyncio.run(write())
    return path


def held(run: Run) -> list[tuple[int, str, int]]:
    done = run("parked", "list", "--json")
    assert (done.code, done.err) == (0, "")
    return [(key["number"], key["state"], key["changes"]) for key in json.loads(done.out)["held"]]


def test_what_is_held_is_listed_for_people_and_for_programs(run: Run) -> None:
    assert held(run) == [(1, "parked", 3), (2, "retrying", 1)]
    lines = run("parked", "list", "cache").out.splitlines()
    assert lines[0].split()[:4] == ["subscription", "number", "state", "table"]
    assert "KeyError: 'colour'" in lines[1]
    assert run("parked", "list", "other").out == "nothing is parked\n"


def test_one_key_is_shown_with_the_changes_that_wait(run: Run) -> None:
    done = run("parked", "show", "cache", "1")
    assert done.code == 0
    assert "from " in done.out
    assert [json.loads(line)["new"]["name"] for line in done.out.splitlines() if line[0] == "{"] == ["n0", "n1", "n2"]
    whole = json.loads(run("parked", "show", "cache", "1", "--json").out)
    assert (whole["state"], whole["key"], len(whole["waiting"])) == ("parked", {"id": 1}, 3)
    assert whole["first_failed_at"].endswith("+00:00")


def test_a_key_that_is_not_held_is_an_error_that_says_where_to_look(run: Run) -> None:
    for words in (("show", "cache", "9"), ("redrive", "cache", "9"), ("discard", "cache", "9", "--reason", "x")):
        done = run("parked", *words)
        assert (done.code, "subscription 'cache' holds no key number 9" in done.err) == (2, True)


def test_redrive_makes_a_parked_key_due(run: Run) -> None:
    assert "1 parked key is tried again" in run("parked", "redrive", "cache", "1").out
    assert held(run) == [(1, "retrying", 3), (2, "retrying", 1)]


def test_redrive_of_all_takes_the_parked_ones(run: Run) -> None:
    assert json.loads(run("parked", "redrive", "cache", "--all", "--json").out)["said"] == "1 parked key is tried again"
    for words in ((), ("1", "--all")):
        done = run("parked", "redrive", "cache", *words)
        assert (done.code, "give the number of a key, or --all" in done.err) == (2, True)


def test_discard_takes_the_failing_change_and_lets_the_rest_go_on(run: Run) -> None:
    assert "1 change is discarded" in run("parked", "discard", "cache", "1", "--reason", "the product is gone").out
    assert held(run) == [(1, "retrying", 2), (2, "retrying", 1)]


def test_discard_of_all_takes_what_waits_too(run: Run) -> None:
    assert "3 changes are discarded" in run("parked", "discard", "cache", "1", "--all", "--reason", "gone").out
    assert held(run) == [(2, "retrying", 1)]


def test_a_discard_needs_a_reason_which_is_audited(run: Run) -> None:
    done = run("parked", "discard", "cache", "1")
    assert (done.code, "--reason" in done.err) == (2, True)
    run("parked", "discard", "cache", "1", "--reason", "the product is gone")
    (entry,) = json.loads(run("audit", "--json").out)["audit"]
    assert (entry["action"], entry["subject"]) == ("discard", "cache/1")
    assert entry["detail"].startswith("the product is gone")
    assert "0/1000:0" in entry["detail"]
