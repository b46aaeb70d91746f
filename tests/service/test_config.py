"""Where settings come from, which goes first, and that all faults are named together."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend_watcher.errors import ConfigError
from backend_watcher.service.config import Config, find_app, load_config
from backend_watcher.service.watcher import Watcher
from backend_watcher.sinks import Memory

DSN = "postgresql://watcher:hunter2@db.example.com:5432/shop"

GOOD = """\
name = "shop"

[source]
dsn = "postgresql://watcher:hunter2@db.example.com:5432/shop"
heartbeat_seconds = 5
max_wal_bytes = 1073741824

[journal]
quota_bytes = 1073741824
retain_seconds = 86400

[[subscription]]
name = "product_cache"
sink = "redis_cache"
table = "products"
update = ["stock", "name"]
delete = true
key = "product:{id}"
url = "redis://:hunter3@localhost:6379/0"
concurrency = 4

[[subscription]]
name = "lines"
sink = "stdout"
tables = ["orders", "shop.order_lines"]
"""


def load(
    folder: Path,
    text: str | None = None,
    environ: Mapping[str, str] | None = None,
    watcher: Watcher | None = None,
    *,
    complete: bool = True,
) -> Config:
    path = folder / "watcher.toml"
    if text is not None:
        path.write_text(text)
    return load_config(path if text is not None else None, environ or {}, watcher=watcher, complete=complete)


def faults(folder: Path, text: str, environ: Mapping[str, str] | None = None, watcher: Watcher | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, environ, watcher)
    assert caught.value.exit_code == 2
    assert all("\n" not in fault for fault in caught.value.faults)
    return "\n".join(caught.value.faults).replace(str(folder / "watcher.toml"), "watcher.toml")


@pytest.fixture
def program() -> Watcher:
    watcher = Watcher("program", dsn="postgresql://code@h/x")
    watcher.to(Memory(), table="products", name="notify_seller")
    return watcher


def test_a_file_says_everything(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert (config.name, config.source.dsn, config.source.slot) == ("shop", DSN, "watcher_shop")
    assert (config.source.publication, config.source.heartbeat_seconds) == ("watcher_shop", 5.0)
    assert config.source.max_wal_bytes == 1 << 30
    assert (config.journal.path, config.journal.quota_bytes) == (Path(".watcher/shop.journal"), 1 << 30)
    assert config.journal.retain_seconds == 86400
    cache, lines = config.subscriptions
    assert (cache.name, cache.sink, cache.tables, cache.concurrency) == (
        "product_cache",
        "redis_cache",
        ("products",),
        4,
    )
    assert (cache.insert, cache.update, cache.delete, cache.truncate) == (None, ("stock", "name"), True, None)
    assert cache.sink_options == {"key": "product:{id}", "url": "redis://:hunter3@localhost:6379/0"}
    assert cache.make_sink().describe()["key"] == "product:{id}"
    assert (lines.tables, lines.sink_options, lines.batch) == (("orders", "shop.order_lines"), {}, 1000)


def test_secrets_are_in_no_repr(tmp_path: Path) -> None:
    assert "hunter" not in repr(load(tmp_path, GOOD))


def test_the_environment_goes_over_the_file_and_the_file_over_the_program(tmp_path: Path, program: Watcher) -> None:
    environ = {"WATCHER_SOURCE__SLOT": "other", "WATCHER_JOURNAL__QUOTA_BYTES": "2097152", "WATCHER_NAME": "env_shop"}
    config = load(tmp_path, GOOD, environ, program)
    assert (config.name, config.source.slot, config.source.publication) == ("env_shop", "other", "watcher_env_shop")
    assert (config.journal.quota_bytes, config.journal.retain_seconds) == (2 << 20, 86400)
    assert load(tmp_path, GOOD, {}, program).name == "shop"
    assert load(tmp_path, "", {}, program).name == "program"


@pytest.mark.parametrize(
    ("file", "environ", "expected"),
    [
        ('name="a"\n[source]\ndsn="postgresql://file/x"', {"WATCHER_SOURCE__DSN": "postgresql://env/x"}, "env"),
        ('name="a"\n[source]\ndsn="postgresql://file/x"', {"DATABASE_URL": "postgresql://url/x"}, "file"),
        ('name="a"', {"DATABASE_URL": "postgresql://url/x"}, "url"),
        ('name="a"', {"DATABASE_URL": "postgresql://url/x", "WATCHER_SOURCE__DSN": "postgresql://env/x"}, "env"),
        ('name="a"', {"WATCHER_SOURCE__DSN": ""}, "code"),
    ],
)
def test_the_dsn_comes_from_the_nearest_place(
    tmp_path: Path, program: Watcher, file: str, environ: dict[str, str], expected: str
) -> None:
    dsn = load(tmp_path, file, environ, program).source.dsn
    assert dsn.replace("code@h", "code") == f"postgresql://{expected}/x"


def test_a_subscription_can_come_from_the_environment(tmp_path: Path) -> None:
    environ = {
        "WATCHER_SUBSCRIPTION__PRODUCT_CACHE__URL": "redis://cache:6379/0",
        "WATCHER_SUBSCRIPTION__PRODUCT_CACHE__COLUMNS": '["id", "stock"]',
        "WATCHER_SUBSCRIPTION__PRODUCT_CACHE__EXPIRE_SECONDS": "60",
        "WATCHER_SUBSCRIPTION__MORE__SINK": "stdout",
        "WATCHER_SUBSCRIPTION__MORE__TABLES": '["a", "b"]',
        "WATCHER_SUBSCRIPTION__MORE__BATCH": "10",
    }
    cache, _, more = load(tmp_path, GOOD, environ).subscriptions
    assert cache.sink_options["url"] == "redis://cache:6379/0"
    assert cache.sink_options["columns"] == ["id", "stock"]
    assert cache.sink_options["expire_seconds"] == 60
    assert (more.name, more.tables, more.batch) == ("more", ("a", "b"), 10)


def test_an_entry_without_a_sink_is_for_a_function_of_the_program(tmp_path: Path, program: Watcher) -> None:
    text = '[[subscription]]\nname = "notify_seller"\nconcurrency = 4\ntimeout_seconds = 2.5\n'
    assert load(tmp_path, text, {}, program).overrides == {"notify_seller": {"concurrency": 4, "timeout_seconds": 2.5}}
    said = faults(tmp_path, text.replace("notify_seller", "notify_sellr"), {}, program)
    assert "watcher.toml, line 1: subscription.notify_sellr.sink: is missing; only subscriptions that the" in said
    assert "like 'notify_seller'" in said
    said = faults(tmp_path, text + 'table = "x"\n', {}, program)
    assert "line 5: subscription.notify_seller.table: 'notify_seller' is declared in Python" in said


def test_looking_at_a_journal_needs_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = 'name = "shop"\n[[subscription]]\nname = "notify_seller"\nconcurrency = 4\n'
    assert load(tmp_path, text, complete=False).source.dsn == ""
    with pytest.raises(ConfigError, match="name: is missing"):
        load(tmp_path, "", complete=False)
    (tmp_path / "watcher.toml").unlink()
    (tmp_path / ".watcher").mkdir()
    (tmp_path / ".watcher" / "only.journal").touch()
    assert load(tmp_path, complete=False).name == "only"
    (tmp_path / ".watcher" / "second.journal").touch()
    with pytest.raises(ConfigError, match=r"there are \.watcher/only\.journal, \.watcher/second\.journal"):
        load(tmp_path, complete=False)


WRONG = """\
nmae = "shop"
[sorce]
dsn = "x"
[source]
slot = "Bad-Slot"
heartbeat_secs = 10
[journal]
quota_bytes = "ten"
retain_seconds = -1
retain_bytes = true
[[subscription]]
name = "cache"
sink = "redis_cache"
table = "products"
kye = "product:{id}"
format = "jsn"
expire_seconds = "soon"
[[subscription]]
name = "cache"
[[subscription]]
name = "lines"
sink = "stdot"
concurrency = 0
[[subscription]]
name = "both"
sink = "stdout"
tables = "products"
update = 3
"""


def test_every_wrong_line_is_named_at_once(tmp_path: Path) -> None:
    said = faults(tmp_path, WRONG, {"WATCHER_SOURCE__DNS": "1", "WATCHER_JORNAL__PATH": "x", "WATCHER_PORT": "tcp://1"})
    for line in (
        "line 1: nmae: unknown setting; did you mean 'name'?",
        "line 2: sorce: unknown setting; did you mean 'source'?",
        "line 4: source.dsn: is missing; set it, or WATCHER_SOURCE__DSN or DATABASE_URL",
        "line 5: source.slot: 'Bad-Slot' is not a slot name",
        "line 6: source.heartbeat_secs: unknown setting; did you mean 'heartbeat_seconds'?",
        "line 8: journal.quota_bytes: 'ten' is not a whole number; right would be, for example, quota_bytes = 10737",
        "line 9: journal.retain_seconds: -1 is out of range; it has to be at least 0",
        "line 10: journal.retain_bytes: true is not a number",
        "line 15: subscription.cache.kye: unknown setting; did you mean 'key'?",
        "line 16: subscription.cache.format: 'jsn' is not one of 'json' or 'hash'",
        "line 17: subscription.cache.expire_seconds: 'soon' is not a number",
        "line 11: subscription.cache.key: is missing; sink 'redis_cache' needs it",
        "line 19: subscription[2].name: there is a subscription 'cache' already",
        "line 20: subscription.lines.table: is missing",
        "line 22: subscription.lines.sink: 'stdot' is not a sink; did you mean 'stdout'?",
        "line 23: subscription.lines.concurrency: 0 is out of range; it has to be at least 1",
        "line 27: subscription.both.tables: 'products' is not a list",
        "line 28: subscription.both.update: 3 is neither true nor false",
        "name: is missing",
    ):
        assert line in said, line
    assert "WATCHER_SOURCE__DNS: source.dns: unknown setting; did you mean 'dsn'?" in said
    assert "WATCHER_JORNAL__PATH: unknown setting; did you mean WATCHER_JOURNAL__PATH?" in said
    assert "WATCHER_PORT" not in said
    assert len(said.splitlines()) == 21


def test_no_secret_is_ever_quoted(tmp_path: Path) -> None:
    text = (
        GOOD.replace("5432", "hunter4")
        .replace("6379/0", "hunter5/0")
        .replace("[journal]", "[journal]\nkey='hunter6@x'")
    )
    text = text.replace('sink = "stdout"', 'sink = "redis://:hunter7@h/0"')
    said = faults(tmp_path, text)
    assert "hunter" not in said
    assert "source.dsn: the DSN cannot be read" in said
    assert "subscription.lines.sink: the value is not a sink" in said


def test_the_program_a_file_names(tmp_path: Path) -> None:
    path = tmp_path / "watcher.toml"
    path.write_text('app = "app.py"')
    assert find_app(path, {}) == "app.py"
    assert find_app(path, {"WATCHER_APP": "other.py"}) == "other.py"
    path.write_text("app = ")
    assert find_app(path, {}) is None


def said_about(path: Path | None, environ: Mapping[str, str]) -> list[str]:
    """Return the faults, or that there are none; any other exception is a failure of the test."""
    try:
        load_config(path, environ, watcher=None)
    except ConfigError as error:
        return error.faults
    return ["fine"]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_a_damaged_file_raises_nothing_else(tmp_path_factory: pytest.TempPathFactory, seed: int, cuts: int) -> None:
    draw = random.Random(seed)
    text = draw.choice([GOOD, WRONG])
    for _ in range(cuts):
        at = draw.randrange(len(text))
        new = draw.choice(
            ["", '"', "[", "]", "=", "\n", "{", "}", "0", "é", "\0", "'''", "-", ".", "nan", text[at : at + 30]]
        )
        text = text[:at] + new + text[at + draw.randrange(4) :]
    path = tmp_path_factory.getbasetemp() / "damaged.toml"
    path.write_text(text)
    said = said_about(path, {})
    assert said
    assert all(fault and "\n" not in fault and "hunter" not in fault for fault in said)


ENVIRONMENT = st.dictionaries(
    st.text("SOURCEJNAL_DB", min_size=1, max_size=12).map(lambda name: f"WATCHER_{name}")
    | st.sampled_from(["WATCHER_SOURCE", "WATCHER_JOURNAL", "WATCHER_SUBSCRIPTION", "WATCHER_SUBSCRIPTION__CACHE"])
    | st.sampled_from(["WATCHER_SUBSCRIPTION__CACHE__TABLES", "WATCHER_SUBSCRIPTION__A__B__C", "WATCHER_JOURNAL__"]),
    st.text(max_size=20) | st.sampled_from(["{}", "[", '{"dsn": 1}', "1e999", "true", "null", "[[]]"]),
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(ENVIRONMENT)
def test_a_strange_environment_raises_nothing_else(environ: dict[str, str]) -> None:
    said = said_about(None, environ)
    assert said
    assert all(fault and "\n" not in fault for fault in said)
