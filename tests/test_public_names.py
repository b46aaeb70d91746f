"""The public names are deliberate: listed once, sorted, and all there."""

import importlib

import pytest

import backend_watcher

FRONT = [
    "ABSENT",
    "UNCHANGED",
    "Change",
    "Message",
    "Operation",
    "Position",
    "Retry",
    "Row",
    "SchemaChange",
    "Skip",
    "Watcher",
    "__version__",
]
PUBLIC = {
    "backend_watcher": FRONT,
    "backend_watcher.embedded": ["EmbeddedPostgres", "EmbeddedValkey", "Way"],
}


@pytest.mark.parametrize("module", PUBLIC)
def test_names_are_what_we_promise(module: str) -> None:
    loaded = importlib.import_module(module)
    assert loaded.__all__ == PUBLIC[module]
    for name in loaded.__all__:
        assert getattr(loaded, name) is not None


def test_no_other_name_leaks_from_the_front_door() -> None:
    rooms = {"capture", "cli", "context", "contracts", "decode", "delivery", "demo", "embedded", "errors", "events"}
    rooms |= {
        "journal",
        "postgres",
        "probes",
        "reconcile",
        "service",
        "sinks",
        "telemetry",
        "testing",
        "threads",
        "verifiable",
        "version",
        "web",
    }
    leaked = {name for name in vars(backend_watcher) if not name.startswith("_")}
    assert leaked - set(backend_watcher.__all__) - rooms == set()
