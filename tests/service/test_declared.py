"""Settings and program become one list of subscriptions."""

from pathlib import Path

from backend_watcher import Watcher
from backend_watcher.service.config import load_config
from backend_watcher.service.declared import wanted_of

TOML = """
[[subscription]]
name = "mirror"
sink = "stdout"
tables = ["products", "orders"]
update = ["stock"]
batch = 10
max_in_flight = 50

[[subscription]]
name = "notify"
concurrency = 4
timeout_seconds = 3
"""


def test_settings_add_subscriptions_and_change_options(tmp_path: Path) -> None:
    path = tmp_path / "watcher.toml"
    path.write_text(TOML)
    watcher = Watcher("shop", dsn="postgresql://127.0.0.1/shop")

    @watcher.on("products", concurrency=2)
    async def notify(change: object) -> None:
        pass

    notified, mirror = wanted_of(load_config(path, {}, watcher=watcher), watcher)
    assert (notified.options.concurrency, notified.options.timeout_seconds) == (4, 3)
    # A function that is called per change times each call by itself.
    assert notified.sink.timeout_seconds == 3
    assert (mirror.name, mirror.tables, mirror.columns) == ("mirror", ("products", "orders"), {"stock"})
    assert (mirror.options.batch.changes, mirror.options.max_in_flight) == (10, 50)


def test_without_settings_the_program_stands_as_it_is(tmp_path: Path) -> None:
    watcher = Watcher("shop", dsn="postgresql://127.0.0.1/shop")
    watcher.on("products")(print)
    config = load_config(None, {"WATCHER_JOURNAL__PATH": str(tmp_path / "j")}, watcher=watcher)
    assert wanted_of(config, watcher) == watcher.wanted
