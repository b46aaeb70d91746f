"""Which sinks can be read back, and that they keep what is promised of it."""

from __future__ import annotations

import inspect

import pytest

from backend_watcher.sinks.redis_cache import RedisCache
from backend_watcher.sinks.stdout import Stdout
from backend_watcher.verifiable import EXPIRED, Verifiable
from test_contracts import members


@pytest.mark.parametrize("keeper", [RedisCache])
def test_it_has_all_that_is_promised(keeper: type) -> None:
    for name, promised in members(Verifiable).items():
        kept = inspect.getattr_static(keeper, name)
        assert inspect.iscoroutinefunction(kept) == inspect.iscoroutinefunction(promised), name
        assert list(inspect.signature(kept).parameters) == list(inspect.signature(promised).parameters), name


def test_a_sink_is_known_by_what_it_can_do() -> None:
    assert isinstance(RedisCache("a:{id}"), Verifiable)
    assert not isinstance(Stdout(), Verifiable)


def test_no_value_is_taken_for_an_expired_one() -> None:
    assert EXPIRED != b"{}"
