"""One reading: what is wrong in one place does not hide what is wrong in another."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend_watcher.errors import ConfigError
from backend_watcher.service.config_reading import Reading


def faults(text: str, environ: dict[str, str], folder: Path) -> list[str]:
    path = folder / "watcher.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Reading(path, environ, None, complete=True).config()
    return [fault.replace(f"{path}, ", "") for fault in caught.value.faults]


def test_a_broken_file_does_not_hide_the_environment(tmp_path: Path) -> None:
    said = faults("name = ", {"WATCHER_JOURNAL__QUOTA_BYTES": "x", "WATCHER_SUBSCRIPTION__A__SINK": "nope"}, tmp_path)
    assert any("not TOML" in fault for fault in said)
    assert any(fault.startswith("WATCHER_JOURNAL__QUOTA_BYTES: journal.quota_bytes: 'x'") for fault in said)
    assert any(fault.startswith("WATCHER_SUBSCRIPTION__A__SINK: subscription.a.sink: 'nope'") for fault in said)


def test_a_wrong_shape_does_not_hide_the_rest(tmp_path: Path) -> None:
    said = faults('source = 3\nsubscription = "x"\nname = "Bad Name"\n', {}, tmp_path)
    assert said == [
        "line 2: subscription: is not a list of tables; right would be [[subscription]]",
        "line 1: source: 3 is not a table of settings",
        "line 3: name: 'Bad Name' is not a name; a name has 1 to 40 of a-z, 0-9 and _",
        "line 1: source.dsn: is missing; set it, or WATCHER_SOURCE__DSN or DATABASE_URL, to postgresql://…",
    ]


@pytest.mark.parametrize("table", ["[subscription]", "[[subscription]]\n[subscription.source]", "[subscriptions.a]"])
def test_subscriptions_of_another_shape(tmp_path: Path, table: str) -> None:
    assert (
        "subscription"
        in faults(f'name = "a"\n{table}\nsink = "stdout"', {"DATABASE_URL": "postgresql://h/x"}, tmp_path)[0]
    )


def test_a_reference_is_followed_and_checked(tmp_path: Path) -> None:
    text = 'name = "a"\n[source]\ndsn = "env:SHOP"\npublication = ""\n'
    said = faults(text, {}, tmp_path)
    assert said[0].startswith("line 3: source.dsn: the environment variable 'SHOP' is not set")
    said = faults(text, {"SHOP": "mysql://u:hunter2@h/x"}, tmp_path)
    assert said[0].startswith("line 3: source.dsn: the DSN cannot be read")
    assert "hunter2" not in "".join(said)
