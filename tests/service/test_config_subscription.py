"""One `[[subscription]]` against the words of its sink."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backend_watcher.service import config_subscription
from backend_watcher.service.config_file import ConfigFile
from backend_watcher.service.config_settings import Places
from backend_watcher.service.config_subscription import Entry, Program

ALONE = Program(frozenset(), known=False, complete=True)


def entry(values: dict[str, Any], program: Program = ALONE, environ: dict[str, str] | None = None) -> Entry:
    return Entry("a", values, program, Places(ConfigFile(), environ or {}, {}), environ or {})


def faults(values: dict[str, Any], environ: dict[str, str] | None = None) -> list[str]:
    one = entry(values, environ=environ)
    assert one.subscription() is None
    return [fault.removeprefix("subscription.a.") for fault in one.faults]


CACHE = {"sink": "redis_cache", "table": "products", "key": "product:{id}"}


def test_options_are_held_against_the_signature() -> None:
    made = entry(CACHE | {"expire_seconds": 60, "columns": ["id"], "guard": False}).subscription()
    assert made is not None
    assert made.sink_options == {"key": "product:{id}", "expire_seconds": 60.0, "columns": ["id"], "guard": False}
    assert faults(CACHE | {"expire": 60, "concurency": 2}) == [
        "expire: unknown setting; did you mean 'expire_seconds'?",
        "concurency: unknown setting; did you mean 'concurrency'?",
    ]
    assert faults({"sink": "redis_cache", "table": "products"}) == ["key: is missing; sink 'redis_cache' needs it"]


def test_what_the_sink_itself_refuses_is_told_at_its_key() -> None:
    assert faults(CACHE | {"expire_seconds": -1}) == [
        "expire_seconds: -1.0 is not more than 0; leave it out to keep entries for ever"
    ]
    (said,) = faults(CACHE | {"url": "http://:hunter2@h"})
    assert said.startswith("url: ")
    assert "hunter2" not in said


def test_an_url_by_reference(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("redis://:hunter2@h/0")
    path.chmod(0o600)
    made = entry(CACHE | {"url": f"file:{path}"}).subscription()
    assert made is not None
    assert made.sink_options["url"] == "redis://:hunter2@h/0"
    assert faults(CACHE | {"url": "env:NOPE"}) == [
        "url: the environment variable 'NOPE' is not set; set it, or correct the name"
    ]
    # A key is no secret: `env:` may be how it begins.
    made = entry(CACHE | {"key": "env:{id}"}).subscription()
    assert made is not None
    assert made.sink_options["key"] == "env:{id}"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sink": "handler", "table": "x"}, "sink: 'handler' is not a sink"),
        ({"sink": "memory", "table": "x"}, "sink: 'memory' is not a sink"),
        ({"sink": "stdout"}, "table: is missing"),
        ({"sink": "stdout", "tables": []}, "tables: is missing"),
        ({"sink": "stdout", "table": "x", "tables": ["y"]}, "tables: there is table too"),
        ({"sink": "stdout", "table": "a.b.c"}, "table: 'a.b.c' is not a table name"),
        ({"sink": "stdout", "table": ""}, "table: '' is not a table name"),
        ({"table": "x"}, "sink: is missing; right would be"),
        ({"sink": 3, "table": "x"}, "sink: 3 is not a text"),
        ({"sink": "stdout", "table": "x", "stream": 3, "stram": 1}, "stram: unknown setting; did you mean 'stream'?"),
    ],
)
def test_faults(values: dict[str, Any], said: str) -> None:
    assert faults(values)[0].startswith(said)


def test_a_sink_that_raises_anything_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Strange:
        def __init__(self, url: str, unknown: "NoSuchType" = None) -> None:  # noqa: F821, UP037
            raise ValueError(f"cannot use {url}")

    monkeypatch.setattr(config_subscription, "sink_names", lambda: ["strange"])
    monkeypatch.setattr(config_subscription, "load", lambda name: Strange)
    assert faults({"sink": "strange", "table": "x", "url": "hunter2", "unknown": 1}) == [
        "sink: ValueError: cannot use ***"
    ]


def test_braces_in_the_environment_are_a_table_only_if_they_are_json() -> None:
    environ = {"WATCHER_SUBSCRIPTION__A__KEY": "{id}:x", "WATCHER_SUBSCRIPTION__A__TABLES": '["a", "b"]'}
    values = {"sink": "redis_cache", "tables": '["a", "b"]', "key": "{id}:x", "on_truncate": "ignore"}
    made = entry(values, environ=environ).subscription()
    assert made is not None
    assert (made.tables, made.sink_options["key"]) == (("a", "b"), "{id}:x")


def test_an_override_takes_only_how_it_is_fed() -> None:
    program = Program(frozenset({"a"}), known=True, complete=True)
    assert entry({"batch": 5, "batch_seconds": 1}, program).override() == {"batch": 5, "batch_seconds": 1.0}
    one = entry({"batch": 0, "key": "x", "insert": True}, program)
    assert one.is_override
    assert one.override() == {}
    assert [fault.partition(": ")[0] for fault in one.faults] == [
        "subscription.a.insert",
        "subscription.a.batch",
        "subscription.a.key",
    ]
    taken = entry(CACHE, program)
    assert taken.subscription() is None
    assert "declares a subscription of this name too" in taken.faults[0]


REPLICA = {"sink": "postgres_replica", "table": "products", "dsn": "postgresql://u:hunter2@127.0.0.1/reports"}


def test_a_sink_says_how_it_wants_to_be_fed_and_the_file_overrules_it() -> None:
    made = entry(REPLICA | {"create": True}).subscription()
    assert made is not None
    assert (made.concurrency, made.batch, made.sink_options["create"]) == (1, 10_000, True)
    made = entry(REPLICA | {"batch": 50}).subscription()
    assert made is not None
    assert (made.concurrency, made.batch) == (1, 50)
    assert faults(REPLICA | {"dsn": "postgresql://u:hunter2@h@x:no"})[0].startswith("dsn: the DSN cannot be read")
    assert faults(REPLICA | {"origin": "perhaps"})[0].startswith("origin: ")
