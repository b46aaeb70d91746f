"""A real Valkey."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from backend_watcher.embedded import EmbeddedValkey, Way
from backend_watcher.errors import EmbeddedError


def test_each_way(way: Way) -> None:
    with EmbeddedValkey(way=way) as valkey:
        client = redis.Redis.from_url(valkey.url)
        assert valkey.way is way
        assert client.set("a", "1")
        assert client.get("a") == b"1"
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
        with pytest.raises(redis.ResponseError, match="protected config"):
            client.config_set("dir", "/")
        client.close()


def test_nothing_is_kept_by_default_and_all_of_it_on_request(tmp_path: Path) -> None:
    settings = {"appendonly": "yes", "appendfsync": "always"}
    with EmbeddedValkey() as valkey, redis.Redis.from_url(valkey.url) as client:
        client.set("a", "1")
        valkey.kill()
        valkey.start()
        assert client.get("a") is None
    valkey = EmbeddedValkey(tmp_path / "kept", settings=settings).start()
    with redis.Redis.from_url(valkey.url) as client:
        client.set("a", "1")
    valkey.kill()
    with EmbeddedValkey(tmp_path / "kept", settings=settings) as valkey, redis.Redis.from_url(valkey.url) as client:
        assert client.get("a") == b"1"


def test_a_password_is_in_the_url_and_on_no_command_line() -> None:
    with EmbeddedValkey(settings={"requirepass": "s3/cret"}) as valkey:
        with redis.Redis.from_url(valkey.url) as client:
            assert client.ping()
        with redis.Redis(port=valkey.port) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
        command = Path(f"/proc/{valkey.pid}/cmdline")
        assert not command.exists() or b"cret" not in command.read_bytes()


def test_wrong_settings_are_errors() -> None:
    with pytest.raises(EmbeddedError, match="no-such-thing"):
        EmbeddedValkey(settings={"no-such-thing": "1"}).start()
    with pytest.raises(EmbeddedError, match="cannot be written"):
        EmbeddedValkey(settings={"maxmemory": "1\nbind 0.0.0.0"}).start()
    with pytest.raises(EmbeddedError, match="not a setting"):
        EmbeddedValkey(settings={"port": "1"}).start()
