"""
Where changes go, one file each; a sink and the client it needs are imported only when asked for.

    from backend_watcher.sinks import RedisCache     # a class
    load("redis_cache")                              # the same, by the name that configuration uses

Other packages add names with the entry point group `backend_watcher.sinks`.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from backend_watcher.contracts import Sink
from backend_watcher.errors import ConfigError

if TYPE_CHECKING:
    from backend_watcher.sinks.handler import Handler
    from backend_watcher.sinks.memory import Memory
    from backend_watcher.sinks.postgres_replica import PostgresReplica
    from backend_watcher.sinks.redis_cache import RedisCache
    from backend_watcher.sinks.stdout import Stdout
    from backend_watcher.sinks.webhook import Webhook

ENTRY_POINTS = "backend_watcher.sinks"

# Name in the configuration: class, and what brings the client it needs (the import's name, the extra).
_OURS: dict[str, tuple[str, tuple[str, str] | None]] = {
    "handler": ("Handler", None),
    "memory": ("Memory", None),
    "postgres_replica": ("PostgresReplica", None),
    "redis_cache": ("RedisCache", ("redis", "redis")),
    "stdout": ("Stdout", None),
    "webhook": ("Webhook", ("aiohttp", "webhook")),
}

__all__ = ["ENTRY_POINTS", "Handler", "Memory", "PostgresReplica", "RedisCache", "Stdout", "Webhook", "load", "names"]


def names() -> list[str]:
    """Return the names of all sinks there are, ours and those of other packages."""
    return sorted({*_OURS, *_others()})


def load(name: str) -> Callable[..., Sink]:
    """Return the class of a sink. Raises ConfigError for a name nobody has, or if its client is not installed."""
    if name in _OURS:
        return _import(name)
    other = _others().get(name)
    if other is not None:
        try:
            return other.load()  # type: ignore[no-any-return]
        except ImportError as error:
            raise ConfigError([f"sink {name!r} of {other.value} cannot be imported: {error}"]) from error
    known = names()
    near = get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
    raise ConfigError([f"unknown sink {name!r}; {hint}"])


def _others() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _import(name: str) -> Callable[..., Sink]:
    class_name, client = _OURS[name]
    try:
        module = import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if client is None or (error.name or "").partition(".")[0] != client[0]:
            raise
        remedy = f"pip install 'backend-watcher[{client[1]}]'"
        raise ConfigError([f"sink {name!r} needs the package {client[0]!r}: {remedy}"], remedy=remedy) from None
    found: Callable[..., Sink] = getattr(module, class_name)
    return found


def __getattr__(class_name: str) -> Any:
    for name, (ours, _) in _OURS.items():
        if ours == class_name:
            return _import(name)
    raise AttributeError(f"module {__name__!r} has no attribute {class_name!r}")
