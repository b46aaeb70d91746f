"""Which sinks can be read back, and that they keep what is promised of it."""

from __future__ import annotations

import inspect

import pytest

from backend_watcher.errors import SinkRejected
from backend_watcher.service.observe import Figures
from backend_watcher.sinks.postgres_replica import PostgresReplica
from backend_watcher.sinks.redis_cache import RedisCache
from backend_watcher.sinks.stdout import Stdout
from backend_watcher.testing.builders import change, table
from backend_watcher.testing.fakes import RecordingObserver
from backend_watcher.verifiable import EXPIRED, Dated, Digesting, ProofObserver, Verifiable
from test_contracts import members

KEEPERS = [
    (PostgresReplica, Verifiable),
    (RedisCache, Verifiable),
    (RedisCache, Dated),
    (Figures, ProofObserver),
    (RecordingObserver, ProofObserver),
]


@pytest.mark.parametrize(("keeper", "promise"), KEEPERS)
def test_it_has_all_that_is_promised(keeper: type, promise: type) -> None:
    for name, promised in members(promise).items():
        kept = inspect.getattr_static(keeper, name)
        assert inspect.iscoroutinefunction(kept) == inspect.iscoroutinefunction(promised), name
        assert list(inspect.signature(kept).parameters) == list(inspect.signature(promised).parameters), name


def test_a_sink_that_digests_has_all_that_is_promised_of_it() -> None:
    for name, promised in members(Digesting).items():
        kept = inspect.getattr_static(PostgresReplica, name)
        assert list(inspect.signature(kept).parameters) == list(inspect.signature(promised).parameters), name
    assert isinstance(PostgresReplica("postgresql://127.0.0.1/copy"), Digesting)
    assert not isinstance(RedisCache("a:{id}"), Digesting)


def test_a_sink_is_known_by_what_it_can_do() -> None:
    assert isinstance(RedisCache("a:{id}"), Verifiable)
    assert isinstance(PostgresReplica("postgresql://127.0.0.1/copy"), Verifiable)
    assert not isinstance(Stdout(), Verifiable)


PRODUCTS = table()
SEVEN = change("read", PRODUCTS, new={"id": 7, "name": "a", "stock": None})
PART = SEVEN.replace(new={"id": 7, "name": "a"})
NAMELESS = change("read", PRODUCTS, new={"id": None, "name": "a"})


async def test_a_cache_says_what_it_should_hold_as_it_would_write_it() -> None:
    full, named, fields = (
        RedisCache("p:{id}"),
        RedisCache("p:{id}", columns=["name"]),
        RedisCache("p:{id}", format="hash"),
    )
    assert await full.entries([SEVEN]) == [(b"p:7", b'{"id":7,"name":"a","stock":null}')]
    assert await named.entries([SEVEN]) == [(b"p:7", b'{"name":"a"}')]
    # Of a hash a field that is NULL is not there, and one that a transform took away is left alone.
    assert await fields.entries([SEVEN, PART]) == [(b"p:7", b'{"id": "7", "name": "a"}')] * 2
    refused = [*await full.entries([PART, NAMELESS]), *await fields.entries([NAMELESS])]
    assert [type(one) for one in refused] == [SinkRejected] * 3


def test_a_cache_names_what_a_change_touches() -> None:
    cache = RedisCache("p:{id}")
    moved = change("update", PRODUCTS, new={"id": 8, "name": "a"}, old={"id": 7})
    assert cache.touches(moved) == [b"p:8", b"p:7"]
    assert cache.touches(change("delete", PRODUCTS, old={"id": 7})) == [b"p:7"]
    assert cache.touches(change("truncate", PRODUCTS)) == []
    assert cache.scope(PRODUCTS) == "p:{id}"
    assert (cache.extras_unknown(), RedisCache("{id}", on_truncate="ignore").extras_unknown() != "") == ("", True)


def test_no_value_is_taken_for_an_expired_one() -> None:
    assert EXPIRED != b"{}"
