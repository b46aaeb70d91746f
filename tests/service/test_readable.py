"""Who can be read back, and what is said where somebody asks for it in vain."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend_watcher import Watcher
from backend_watcher.errors import ConfigError
from backend_watcher.service.build import build
from backend_watcher.service.config import load_config
from backend_watcher.service.declared import wanted_of
from backend_watcher.service.readable import READ_BACK_PER_SECOND, read_back_per_second, tables_of
from backend_watcher.service.subscribed import subscription_of
from backend_watcher.sinks import RedisCache, Stdout

ENVIRON = {"WATCHER_SOURCE__DSN": "postgresql://127.0.0.1:1/shop"}


def rates(watcher: Watcher) -> dict[str, float]:
    return {one.name: read_back_per_second(subscription_of(one, watcher)) for one in watcher.wanted}


def test_caches_of_whole_tables_are_read_back_and_nothing_else() -> None:
    watcher = Watcher("shop")
    watcher.to(RedisCache("a:{id}"), table=["b", "a"], name="cache")
    watcher.to(RedisCache("b:{id}"), table="a", name="often", read_back_per_second=50)
    watcher.to(RedisCache("c:{id}"), table="a", name="never", read_back_per_second=0)
    watcher.to(RedisCache("d:{id}"), table="a", name="part", insert=True)
    watcher.to(Stdout(), table="a", name="lines")
    watcher.on("a", name="function")(print)
    assert rates(watcher) == {
        "cache": READ_BACK_PER_SECOND,
        "often": 50,
        "never": 0,
        "part": 0,
        "lines": 0,
        "function": 0,
    }
    assert tables_of(subscription_of(watcher.wanted[0], watcher)) == ["public.a", "public.b"]


@pytest.mark.parametrize("setting", ["read_back_per_second = 3", "verify_every_seconds = 3600"])
def test_to_ask_for_it_in_vain_is_a_fault(tmp_path: Path, setting: str) -> None:
    path = tmp_path / "watcher.toml"
    entries = [("lines", "stdout", ""), ("cache", "redis_cache", 'key = "a:{id}"\ninsert = true')]
    path.write_text(
        "".join(f'[[subscription]]\nname = "{n}"\nsink = "{s}"\ntable = "a"\n{setting}\n{k}\n' for n, s, k in entries)
    )
    config = load_config(path, ENVIRON, watcher=Watcher("shop"))
    with pytest.raises(ConfigError) as caught:
        wanted_of(config, None)
    name = setting.partition(" ")[0]
    assert caught.value.faults == [
        f"subscription 'lines': {name}: a sink of the kind stdout cannot be read back",
        f"subscription 'cache': {name}: it takes some operations only, so what its sink should hold cannot be said",
    ]


def test_rows_are_compared_only_where_a_stream_says_what_happened_meanwhile() -> None:
    watcher = Watcher("shop")
    watcher.to(RedisCache("a:{id}"), table="a", name="cache", verify_every_seconds=3600)
    build(load_config(None, ENVIRON, watcher=watcher), watcher)
    config = load_config(None, {**ENVIRON, "WATCHER_SOURCE__KIND": "outbox"}, watcher=watcher)
    with pytest.raises(ConfigError, match=r"'cache': verify_every_seconds wants source.kind = 'logical'"):
        build(config, watcher)


def test_a_wrong_setting_is_named_with_what_would_be_right(tmp_path: Path) -> None:
    path = tmp_path / "watcher.toml"
    path.write_text(
        '[[subscription]]\nname = "cache"\nsink = "redis_cache"\ntable = "a"\nkey = "a:{id}"\n'
        "read_back_per_second = 1000\nverify_every_seconds = 5\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path, ENVIRON, watcher=Watcher("shop"))
    often, seldom = caught.value.faults
    assert "read_back_per_second: 1000" in often
    assert "at most 100; right would be, for example, read_back_per_second = 10" in often
    assert "verify_every_seconds: 5" in seldom
    assert "at least 60; right would be, for example, verify_every_seconds = 86400" in seldom
