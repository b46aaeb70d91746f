"""One real Valkey for all sink tests, empty before each."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import redis

from backend_watcher.embedded import EmbeddedValkey
from backend_watcher.errors import EmbeddedError


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[EmbeddedValkey]:
    try:
        server = EmbeddedValkey()
        server.__enter__()
    except EmbeddedError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    yield server
    server.__exit__(None, None, None)


@pytest.fixture
def valkey(valkey_server: EmbeddedValkey) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey_server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def url(valkey_server: EmbeddedValkey, valkey: redis.Redis) -> str:
    return valkey_server.url
