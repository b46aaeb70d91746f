"""The web face is found by its name, and its absence is said with what mends it."""

from __future__ import annotations

import sys

import pytest

from backend_watcher.errors import ConfigError
from backend_watcher.service import faces
from backend_watcher.service.config import WebConfig
from backend_watcher.service.faces import Inside, web_face
from backend_watcher.telemetry.health import Readiness


async def nothing(_: str) -> tuple[bytes, str]:
    return b"", "text/plain"


INSIDE = Inside(nothing, lambda: Readiness(()))


def test_it_is_made() -> None:
    pytest.importorskip("uvicorn")
    face = web_face(WebConfig("127.0.0.1", 0), INSIDE)
    assert {"start", "stop"} <= set(dir(face))


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, faces.WEB, raising=False)
    with pytest.raises(ConfigError, match="uvicorn is not installed") as caught:
        web_face(WebConfig("127.0.0.1", 0), INSIDE)
    assert "backend-watcher[web]" in caught.value.remedy
