"""The routes are those that are written down."""

from __future__ import annotations

import re

from backend_watcher.service.faces import Inside
from backend_watcher.telemetry.health import Readiness
from backend_watcher.web import app as module
from backend_watcher.web.app import make_app


def test_each_route_is_in_the_table() -> None:
    async def metrics(_: str) -> tuple[bytes, str]:
        return b"", "text/plain"

    routes = {route.path for route in make_app(Inside(metrics, lambda: Readiness(()))).routes}  # type: ignore[attr-defined]
    assert routes == set(re.findall(r"^\| (/\w+)", module.__doc__ or "", re.MULTILINE))
