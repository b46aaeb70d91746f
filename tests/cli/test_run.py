"""`watcher run` puts the service to work, and says how it ended. What it does is shown in tests/acceptance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend_watcher.errors import JournalLost
from backend_watcher.service import supervise
from cli.commands import Done

Run = Callable[..., Done]


def replace(monkeypatch: pytest.MonkeyPatch, outcome: int | BaseException) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []

    async def instead(config: Any, watcher: Any, **options: Any) -> int:
        seen.append({"name": config.name, "watcher": watcher, **options})
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(supervise, "supervise", instead)
    return seen


@pytest.fixture(autouse=True)
def settings(folder: Path) -> None:
    (folder / "watcher.toml").write_text('name = "shop"\n[source]\ndsn = "postgresql://h/x"\n')


def test_a_clean_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = replace(monkeypatch, 0)
    assert run("run") == Done(0, "", "")
    assert run("run", "--adopt-slot", "--json").json == {"exit_code": 0}
    assert [one["adopt_slot"] for one in seen] == [False, True]


def test_workers_and_the_program_they_load(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = replace(monkeypatch, 0)
    (folder / "shop_program.py").write_text("from backend_watcher import Watcher\nwatcher = Watcher('shop')\n")
    assert run("run", "shop_program.py", "--workers", "3").code == 0
    monkeypatch.setenv("WATCHER_APP", "shop_program.py")
    assert run("run").code == 0
    assert [(one["target"], one["workers"]) for one in seen] == [("shop_program.py", 3), ("shop_program.py", 0)]
    assert run("run", "--workers", "-1").code == 2


def test_interrupted_before_it_could_listen(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(monkeypatch, KeyboardInterrupt())
    assert run("run").code == 0


def test_a_connection_that_breaks_is_no_clean_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(monkeypatch, BrokenPipeError())
    done = run("run")
    assert (done.code, "BrokenPipeError" in done.err) == (75, True)


def test_a_stop_for_safety(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(monkeypatch, JournalLost("the journal is new"))
    done = run("run")
    assert done.code == 4
    assert done.err.splitlines() == [
        "error: the journal is new",
        "remedy: Put the journal back, or accept the loss with `watcher run --adopt-slot`.",
    ]
    assert run("run", "--json").json["error"]["kind"] == "JournalLost"


def test_wrong_settings_touch_nothing(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = replace(monkeypatch, 0)
    (folder / "watcher.toml").write_text('name = "shop"\ndns = "x"\n')
    done = run("run")
    assert done.code == 2
    assert "watcher.toml, line 2: dns: unknown setting" in done.err
    assert seen == []
    assert [path.name for path in folder.iterdir()] == ["watcher.toml"]
