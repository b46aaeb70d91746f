"""`watcher check`: how findings are shown. What it finds is shown in tests/acceptance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend_watcher.postgres.findings import Finding, Report, fault, ok, warning
from backend_watcher.service import control
from cli.commands import Done

Run = Callable[..., Done]


@pytest.fixture
def found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    (folder / "watcher.toml").write_text('name = "shop"\n[source]\ndsn = "postgresql://h/x"\n')
    findings = [ok("version", "server", "PostgreSQL 18.6"), warning("superuser", "w", "too much", "CREATE ROLE w;")]

    async def check(*_: Any) -> Report:
        return Report(tuple(findings))

    monkeypatch.setattr(control, "check", check)
    return findings


def test_all_is_well(run: Run, found: list[Finding]) -> None:
    done = run("check")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "what    found",
        "server  PostgreSQL 18.6",
        "warning: too much",
        "remedy: CREATE ROLE w;",
    ]
    shown = run("check", "--json").json
    assert (shown["ok"], shown["exit_code"], len(shown["findings"])) == (True, 0, 2)
    assert shown["findings"][1]["remedy"] == "CREATE ROLE w;"


def test_each_fault_is_a_line_with_its_remedy(run: Run, found: list[Finding]) -> None:
    found += [
        fault("wal_level", "server", "wal_level is replica", "ALTER SYSTEM …;"),
        fault("sink", "a", "down", "start it"),
    ]
    done = run("check")
    assert done.code == 3
    assert done.err.splitlines() == [
        "error: wal_level is replica",
        "remedy: ALTER SYSTEM …;",
        "error: down",
        "remedy: start it",
    ]
    shown = run("check", "--json").json
    assert (shown["ok"], shown["exit_code"], shown["error"]["kind"]) == (False, 3, "PreflightFailed")
