"""Which settings belong to which kind of source, and how a wrong one is named."""

from __future__ import annotations

from typing import Any

import pytest

from backend_watcher.service.config_settings import SourceSettings
from backend_watcher.service.config_source import EVERY_KIND, OF_KIND, faults_of_kind


def faults(**values: Any) -> dict[str, str]:
    return faults_of_kind(SourceSettings(**values))


def test_every_setting_belongs_to_one_kind_or_to_all() -> None:
    named = [*EVERY_KIND, *(name for names in OF_KIND.values() for name in names)]
    assert sorted(named) == sorted(SourceSettings.model_fields)


def test_what_is_right_is_not_named() -> None:
    assert faults() == faults(slot="a", ddl_triggers="auto") == {}
    assert faults(kind="outbox", outbox_notify=False, outbox_poll_seconds=1, outbox_table="events") == {}
    assert faults(kind="notify", channels=["orders", "Größe"]) == {}


@pytest.mark.parametrize(
    ("values", "name", "words"),
    [
        ({"kind": "outbox", "slot": "a"}, "slot", "is for kind = 'logical', and source.kind is 'outbox'; take it out"),
        ({"outbox_notify": True}, "outbox_notify", "is for kind = 'outbox'"),
        ({"channels": ["a"]}, "channels", "is for kind = 'notify'"),
        ({"kind": "outbox", "channels": ["a"]}, "channels", "is for kind = 'notify'"),
        ({"kind": "notify", "channels": ["a"], "heartbeat_seconds": 5}, "heartbeat_seconds", "is for kind"),
        (
            {"kind": "notify"},
            "channels",
            'is missing: nothing would be heard; right would be, for example, channels = ["orders"]',
        ),
        ({"kind": "notify", "channels": []}, "channels", "is missing"),
        ({"kind": "notify", "channels": ["a", "a"]}, "channels", "twice"),
        ({"kind": "notify", "channels": ["x" * 64]}, "channels", "is not a channel"),
        ({"kind": "notify", "channels": [""]}, "channels", "is not a channel"),
        ({"kind": "notify", "channels": ["a\0b"]}, "channels", "is not a channel"),
        ({"kind": "notify", "channels": ["watcher_outbox"]}, "channels", "of the watcher's own"),
        ({"kind": "notify", "channels": ["backend_watcher.ddl"]}, "channels", "of the watcher's own"),
        ({"kind": "outbox", "outbox_table": "a.b.c"}, "outbox_table", "is not a table name"),
    ],
)
def test_what_is_wrong_is_named_once(values: dict[str, Any], name: str, words: str) -> None:
    found = faults(**values)
    assert list(found) == [name]
    assert words in found[name]
