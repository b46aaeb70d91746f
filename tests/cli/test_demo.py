"""`watcher demo` hands over to the demo room."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from cli.commands import Done

Run = Callable[..., Done]


def test_its_words_are_handed_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    module = ModuleType("backend_watcher.demo.run")
    module.main = lambda **words: seen.append(words) or 75  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "backend_watcher.demo.run", module)
    assert run("demo", "--seconds", "3", "--json").code == 75
    assert seen == [{"seconds": 3, "as_json": True}]
    assert run("demo", "--seconds", "0").code == 2


def test_a_missing_package_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "backend_watcher.demo.run", None)
    done = run("demo")
    assert done.code == 2
    assert "remedy: pip install 'backend-watcher[demo]'" in done.err
