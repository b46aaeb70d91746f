"""`watcher repair`: what it shows, when it does it, and what the shell is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from backend_watcher.cli import repair as command
from backend_watcher.reconcile.compare import Difference, Kind
from backend_watcher.reconcile.repair import Plan, plan
from backend_watcher.reconcile.report import TableResult
from backend_watcher.service.repairing import Repaired
from backend_watcher.service.verifying import Asked, Proof
from cli.commands import CACHED_ORDERS, Done

Run = Callable[..., Done]
MISSING = [Difference(b"order:%d" % n, Kind.MISSING, b"{}", None, ((str(n),),)) for n in range(12)]
EXTRA = Difference(b"order:77", Kind.EXTRA, None, b"{}")
STRANGE = Difference(b"order:x", Kind.EXTRA, None, b"{}")


@pytest.fixture
def asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done, instead of doing it."""
    (folder / "watcher.toml").write_text(CACHED_ORDERS)
    told: list[str] = []

    async def verify(_: object, __: object, asked: Asked) -> Proof:
        told.append(f"verify {asked.subscription} {asked.table} {asked.where}")
        one = TableResult("cache", "public.orders", complete=True)
        one.differences = [*MISSING, EXTRA, STRANGE] if asked.where != "equal" else []
        return Proof("shop", 0.0, 1.0, [one], interrupted=asked.where == "cut")

    async def what_to_do(_: object, __: object, before: Proof) -> list[Plan]:
        (one,) = before.results
        found = {b"order:77": ("77",), b"order:x": "its name says nothing"}
        return [plan("cache", one.table, one.differences, found)] if one.differences else []  # type: ignore[arg-type]

    async def repair(
        _: object, __: object, before: Proof, plans: list[Plan], *, reason: str, tell: Callable[[str], object]
    ) -> Repaired:
        tell("repair 7 of public.orders: asked for")
        told.append(f"repair {len(plans)} {reason}")
        one = TableResult("cache", "public.orders", complete=True)
        one.differences = [STRANGE]
        return Repaired(before, plans, after=Proof("shop", 0.0, 1.0, [one]))

    monkeypatch.setattr("backend_watcher.service.verifying.verify", verify)
    monkeypatch.setattr("backend_watcher.service.repairing.what_to_do", what_to_do)
    monkeypatch.setattr("backend_watcher.service.repairing.repair", repair)
    return told


def test_in_a_pipe_it_only_shows(run: Run, asked: list[str]) -> None:
    done = run("repair", "cache", "orders")
    assert (done.code, done.err, asked) == (5, "", ["verify cache orders None"])
    first = ", ".join(f"'order:{n}'" for n in range(10))
    assert f"cache public.orders: 12 rows are to be read again and delivered: {first}, and 2 more" in done.out
    assert "cache public.orders: 1 entry is to be removed: 'order:77'" in done.out
    assert "cache public.orders: 1 cannot be repaired, its name says nothing: 'order:x'" in done.out
    assert done.out.endswith("nothing was changed; with --yes it is done\n")


def test_with_yes_it_is_done_and_shown_afterwards(run: Run, asked: list[str]) -> None:
    done = run("repair", "--yes", "--reason", "by hand")
    assert asked == ["verify None None None", "repair 1 by hand"]
    assert done.code == 5
    asked_for, _, afterwards = done.out.partition("afterwards:")
    assert "repair 7 of public.orders: asked for" in asked_for
    assert "order:x" in afterwards
    plain = run("repair", "--yes", "--json").json
    assert (plain["repaired"], plain["exit_code"], plain["plans"][0]["read_again"]) == (True, 5, 12)
    assert run("repair", "--json").json["repaired"] is False


def test_a_person_is_asked(run: Run, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [False, True]
    monkeypatch.setattr(command, "_is_terminal", lambda: True)
    monkeypatch.setattr(typer, "confirm", lambda _: answers.pop(0))
    assert "nothing was changed" in run("repair").out
    assert "afterwards:" in run("repair").out
    assert asked[-1] == "repair 1 "
    assert answers == []


def test_where_nothing_differs_nothing_is_done(run: Run, asked: list[str]) -> None:
    done = run("repair", "--where", "equal", "--yes")
    assert (done.code, asked) == (0, ["verify None None equal"])
    assert "nothing was changed" not in done.out


def test_who_ends_the_looking_wants_nothing_done(run: Run, asked: list[str]) -> None:
    assert run("repair", "--where", "cut", "--yes").code == 5
    assert asked == ["verify None None cut"]


def test_a_report_takes_the_place_of_looking(run: Run, asked: list[str], folder: Path) -> None:
    one = TableResult("cache", "public.orders", complete=True)
    one.differences = [MISSING[3]]
    other = TableResult("other", "public.orders", complete=True)
    (folder / "proof.json").write_text(json.dumps(Proof("shop", 0.0, 1.0, [one, other]).as_plain()))
    done = run("repair", "cache", "--from", "proof.json")
    assert (done.code, asked) == (5, [])
    assert "1 row is to be read again and delivered: 'order:3'" in done.out
    assert "says nothing of nobody" in run("repair", "nobody", "--from", "proof.json").err
    wrong = run("repair", "cache", "orders", "--from", "proof.json")
    assert (wrong.code, "leave the table" in wrong.err) == (2, True)
