"""Each call reaches each listener, once and as it was made."""

from __future__ import annotations

import inspect
from typing import Any

from backend_watcher.contracts import Observer
from backend_watcher.telemetry.several import Several
from backend_watcher.verifiable import ProofObserver


class Heard:
    """Keeps every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.calls.append((name, arguments))


def test_everything_is_passed_on_to_all() -> None:
    names = [
        name
        for protocol in (Observer, ProofObserver)
        for name, what in vars(protocol).items()
        if inspect.isfunction(what) and not name.startswith("_")
    ]
    assert len(names) >= 13
    listeners = [Heard(), Heard()]
    several = Several(listeners)  # type: ignore[arg-type]
    wanted = []
    for name in names:
        count = len(inspect.signature(getattr(Several, name)).parameters) - 1
        arguments = tuple(object() for _ in range(count))
        getattr(several, name)(*arguments)
        wanted.append((name, arguments))
    assert listeners[0].calls == listeners[1].calls == wanted
