"""`watcher schema` and what `watcher status` shows of it, on a journal that nobody runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from backend_watcher.capture.schema import Noticed
from backend_watcher.capture.schema_notes import add_changes
from backend_watcher.journal.sqlite import SqliteJournal
from cli.commands import Done

Run = Callable[..., Done]


@pytest.fixture(autouse=True)
def journal(folder: Path) -> None:
    """Twenty-two changes, the first of which needs a re-read."""

    async def write() -> None:
        journal = SqliteJournal(folder / ".watcher" / "shop.journal")
        await journal.open()
        await add_changes(
            journal,
            [
                Noticed("rewritten", "public.a", "was rewritten", True, "rows differ", "Read the rows of a again."),
                *[
                    Noticed("column_dropped", "public.b", f"column c{n} was dropped", False, "gone", "-")
                    for n in range(21)
                ],
            ],
        )
        await journal.close()

    asyncio.run(write())


def test_list_and_seen(run: Run) -> None:
    done = run("schema", "list")
    assert (done.code, done.err) == (0, "")
    head, first, *rest = done.out.splitlines()
    assert head.split()[:3] == ["schema", "change", "noticed"]
    assert "was rewritten: rows differ" in first
    assert first.endswith("yes      Read the rows of a again.")
    assert len(rest) == 21
    found = run("schema", "list", "--json").json["schema_changes"]
    assert (found[0]["number"], found[0]["needs_reread"], len(found)) == (1, True, 22)
    assert run("schema", "seen", "1").out == "1 schema change is marked as seen\n"
    assert run("schema", "seen", "--all", "--reason", "known").out == "21 schema changes are marked as seen\n"
    assert run("schema", "list").out == "no schema change is open\n"
    assert "rewritten: was rewritten; rows differ" in run("audit").out


def test_the_status_shows_the_newest_and_says_how_many_more(run: Run) -> None:
    done = run("status")
    assert done.code == 0
    assert "column c20 was dropped: gone" in done.out
    assert "was rewritten" not in done.out
    assert done.out.splitlines()[-1] == "and 2 older ones; `watcher schema list` shows all"
    shown = run("status", "--json").json["schema_changes"]
    assert (len(shown), shown[0]["what"], shown[0]["remedy"]) == (22, "was rewritten", "Read the rows of a again.")


def test_wrong_words(run: Run) -> None:
    assert run("schema", "seen").code == 2
    assert run("schema", "seen", "1", "--all").code == 2
    done = run("schema", "seen", "99")
    assert (done.code, "there is no open schema change 99" in done.err) == (2, True)


def test_the_statements_of_the_event_triggers_can_be_printed(run: Run) -> None:
    done = run("schema", "triggers")
    assert (done.code, "CREATE EVENT TRIGGER watcher_ddl_end" in done.out) == (0, True)
    assert run("schema", "triggers", "--json").json["script"] in done.out + "\n"
