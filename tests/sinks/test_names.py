"""Sinks by name, imported only when asked for."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from backend_watcher import sinks
from backend_watcher.contracts import Sink
from backend_watcher.errors import ConfigError


@pytest.mark.parametrize("name", ["handler", "memory", "postgres_replica", "redis_cache", "stdout", "webhook"])
def test_every_name_has_a_class(name: str) -> None:
    assert name in sinks.names()
    loaded = sinks.load(name)
    assert loaded is getattr(sinks, loaded.__name__)
    assert all(hasattr(loaded, part) for part in ("open", "write", "flush", "close", "describe"))


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown sink 'redis_cash'; did you mean 'redis_cache'"):
        sinks.load("redis_cash")
    with pytest.raises(ConfigError, match="there are: handler, memory, postgres_replica, redis_cache, stdout, webhook"):
        sinks.load("zzz")
    with pytest.raises(AttributeError):
        _ = sinks.Kafka


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout


def test_a_client_is_imported_only_with_its_sink() -> None:
    program = "import sys, backend_watcher.sinks as s; s.Memory, s.Handler, s.Stdout; "
    program += "print('redis' in sys.modules, 'aiohttp' in sys.modules)"
    assert run(program) == "False False\n"


@pytest.mark.parametrize(
    ("client", "sink", "extra"), [("redis", "RedisCache", "redis"), ("aiohttp", "Webhook", "webhook")]
)
def test_a_missing_client_names_what_to_install(client: str, sink: str, extra: str) -> None:
    program = (
        f"import sys; sys.modules[{client!r}] = None\n"
        "from backend_watcher.errors import ConfigError\n"
        f"try:\n    from backend_watcher.sinks import {sink}\n"
        "except ConfigError as error:\n    print(error, error.remedy)"
    )
    assert f"pip install 'backend-watcher[{extra}]'" in run(program)


def test_other_packages_add_names(monkeypatch: pytest.MonkeyPatch) -> None:
    good = EntryPoint("theirs", "backend_watcher.sinks.memory:Memory", sinks.ENTRY_POINTS)
    bad = EntryPoint("broken", "no_such_package:Sink", sinks.ENTRY_POINTS)
    monkeypatch.setattr(sinks, "entry_points", lambda group: [good, bad])
    assert "theirs" in sinks.names()
    assert isinstance(sinks.load("theirs")(), Sink)
    with pytest.raises(ConfigError, match="no_such_package"):
        sinks.load("broken")
