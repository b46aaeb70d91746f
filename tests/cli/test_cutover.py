"""`watcher cutover`: what it prints, and what the shell is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from backend_watcher.postgres.sequences import Numbers
from backend_watcher.reconcile.cutover import Compared, State
from backend_watcher.service.cutover import Readiness
from cli.commands import Done

Run = Callable[..., Done]
SETTINGS = """
name = "shop"

[source]
dsn = "postgresql://127.0.0.1:1/shop"

[[subscription]]
name = "copy"
table = "orders"
sink = "postgres_replica"
dsn = "postgresql://127.0.0.1:1/copy"
"""


@pytest.fixture
def found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Readiness:
    """What was found, instead of looking."""
    (folder / "watcher.toml").write_text(SETTINGS)
    source = Numbers(0, "id", 1, "public", "orders_id_seq", 1, True, True, 42)
    found = Readiness("copy", ["public.orders"], [Compared(source, None, State.MISSING)], position="0/2A")

    async def look(*_: object, set_sequences: bool) -> Readiness:
        found.changed = int(set_sequences)
        return found

    monkeypatch.setattr("backend_watcher.service.cutover.cut_over", look)
    return found


def test_ready(run: Run, found: Readiness) -> None:
    done = run("cutover", "copy", "--set")
    assert (done.code, done.err) == (0, "")
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[1] == ["public.orders", "id", "public.orders_id_seq", "42", "–", "missing"]
    assert done.out.endswith("1 sequences were set\nready: all that was committed before 0/2A is at the replica\n")


def test_not_yet(run: Run, found: Readiness) -> None:
    found.reasons.append("3 keys are parked")
    done = run("cutover", "copy")
    assert done.code == 75
    assert "not ready: 3 keys are parked" in done.out
    plain = json.loads(run("cutover", "copy", "--json").out)
    assert (plain["ready"], plain["exit_code"]) == (False, 75)
    assert plain["sequences"][0]["source"] == 42
