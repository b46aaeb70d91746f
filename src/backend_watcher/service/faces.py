"""
What the web face is given, and how it is found.

The faces stand above this room and talk to it; the one that answers over HTTP lives as long as the watcher, so it is
made here, by its name, and told what it may ask.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from backend_watcher.errors import ConfigError
from backend_watcher.service.config import WebConfig
from backend_watcher.telemetry.health import Readiness

WEB = "backend_watcher.web.server"
EXTRA = "pip install 'backend-watcher[web]'"


@dataclass(frozen=True, slots=True)
class Inside:
    """What is answered about the watcher that runs; called in the face's own thread."""

    metrics: Callable[[str], Awaitable[tuple[bytes, str]]]
    readiness: Callable[[], Readiness]


class Face(Protocol):
    """Answers from `start` to `stop`."""

    async def start(self) -> None:
        """Begin to answer. Raises ConfigError where the address cannot be had."""
        ...

    async def stop(self) -> None:
        """End. May be called twice, and without a start."""
        ...


def web_face(config: WebConfig, inside: Inside) -> Face:
    """Return what answers over HTTP. Raises ConfigError where what it needs is not installed."""
    try:
        module = import_module(WEB)
    except ModuleNotFoundError as error:
        raise ConfigError(
            [f"web.listen: {error.name} is not installed"], remedy=f"{EXTRA}, or leave it out."
        ) from error
    face: Face = module.WebFace(config.host, config.port, inside)
    return face
