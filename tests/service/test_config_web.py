"""Where to listen, as people write it."""

from __future__ import annotations

import pytest

from backend_watcher.errors import ConfigError
from backend_watcher.service.config import WebConfig, load_config
from backend_watcher.service.config_web import parse_listen


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8470", "127.0.0.1", 8470),
        (" localhost:0 ", "localhost", 0),
        ("[::1]:65535", "::1", 65535),
        ("127.8.9.1:1", "127.8.9.1", 1),
    ],
)
def test_an_address_of_this_machine(text: str, host: str, port: int) -> None:
    assert parse_listen(text) == WebConfig(host, port)


@pytest.mark.parametrize("text", ["", "8470", "127.0.0.1", ":8470", "127.0.0.1:http", "127.0.0.1:70000", "::1:8470"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is no address with a port; right would be"):
        parse_listen(text)


@pytest.mark.parametrize("text", ["0.0.0.0:8470", "[::]:8470", "10.0.0.7:8470", "shop.example.com:8470"])
def test_what_others_can_reach_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="can be reached by others"):
        parse_listen(text)


def test_it_is_a_setting_like_others() -> None:
    environ = {"WATCHER_NAME": "shop", "WATCHER_WEB__LISTEN": "127.0.0.1:1"}
    assert load_config(None, environ, watcher=None, complete=False).web == WebConfig("127.0.0.1", 1)
    assert load_config(None, {"WATCHER_NAME": "shop"}, watcher=None, complete=False).web == WebConfig()
    with pytest.raises(ConfigError, match=r"WATCHER_WEB__LISTEN.*can be reached by others"):
        load_config(None, {**environ, "WATCHER_WEB__LISTEN": "0.0.0.0:1"}, watcher=None, complete=False)
