"""The layers of settings, and variables that only look like one."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from backend_watcher.service.config_file import ConfigFile
from backend_watcher.service.config_settings import (
    Places,
    Settings,
    faults_of,
    near_or_all,
    read_settings,
    right_would_be,
    unknown_variables,
    without,
)


def test_layers_are_merged_key_by_key() -> None:
    settings = read_settings(
        {"WATCHER_SOURCE__SLOT": "env", "watcher_journal__retain_seconds": "5"},
        {"source": {"slot": "file", "publication": "file"}},
        {"name": "built"},
    )
    assert (settings.name, settings.source.slot, settings.source.publication) == ("built", "env", "file")
    assert settings.journal.retain_seconds == 5


def test_a_password_of_digits_stays_a_text() -> None:
    settings = read_settings({"WATCHER_SUBSCRIPTION__A__PASSWORD": "00123", "WATCHER_NAME": "7"}, {}, {})
    assert settings.subscription == {"a": {"password": "00123"}}
    assert settings.name == "7"


def test_what_kubernetes_sets_for_a_service_called_watcher_is_no_fault() -> None:
    theirs = ["WATCHER_PORT", "WATCHER_PORT_8080_TCP_ADDR", "WATCHER_SERVICE_HOST", "WATCHER_SERVICE_PORT_HTTP"]
    assert unknown_variables(dict.fromkeys([*theirs, "WATCHER_DEBUG", "WATCHER_NAME", "PATH"], "x")) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("WATCHER_NMAE", "did you mean WATCHER_NAME?"),
        ("WATCHER_SOURCE_DSN", "did you mean WATCHER_SOURCE__DSN?"),
        ("WATCHER_JOURNL__PATH", "did you mean WATCHER_JOURNAL__PATH?"),
        ("WATCHER_SINKS__CACHE__URL", "there are WATCHER_NAME, WATCHER_SOURCE__…, WATCHER_JOURNAL__…"),
    ],
)
def test_a_misspelt_variable_is_named(name: str, said: str) -> None:
    (fault,) = unknown_variables({name: "x"})
    assert fault.startswith(f"{name}: unknown setting; {said}")


def test_faults_say_where_the_value_came_from() -> None:
    environ = {"WATCHER_JOURNAL__QUOTA_BYTES": "ten"}
    file = ConfigFile(None, {}, {("journal", "path"): 7})
    with pytest.raises(ValidationError) as caught:
        read_settings(environ, {"journal": {"path": ""}}, {})
    faults = faults_of(caught.value, Settings, Places(file, environ, {}))
    assert set(faults) == {("journal", "quota_bytes"), ("journal", "path")}
    assert faults["journal", "quota_bytes"].startswith(
        "WATCHER_JOURNAL__QUOTA_BYTES: journal.quota_bytes: 'ten' is not"
    )
    assert faults["journal", "path"].startswith("None, line 7: journal.path: is empty; right would be")
    kept, values = without(faults, environ, {"journal": {"path": "", "retain_bytes": 1}, "name": "a"})
    assert (kept, values) == ({}, {"journal": {"retain_bytes": 1}, "name": "a"})


def test_hints() -> None:
    assert near_or_all("Sorce", ["source", "journal"]) == "did you mean 'source'?"
    assert near_or_all("xyz", ["source", "journal"]) == "there are: journal, source"
    assert right_would_be("name", Settings) == '; right would be, for example, name = "shop"'
    assert right_would_be("nothing", Settings) == ""
