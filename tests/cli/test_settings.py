"""From the words of a command to a Config and a Watcher."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend_watcher.cli.settings import read
from backend_watcher.errors import ConfigError

PROGRAM = "from backend_watcher import Watcher\nwatcher = Watcher('from_program', dsn='postgresql://h/x')\n"


def test_the_program_is_named_by_the_command_or_the_settings(folder: Path) -> None:
    (folder / "one_app.py").write_text(PROGRAM)
    (folder / "two_app.py").write_text(PROGRAM.replace("from_program", "second"))
    config, watcher = read("one_app.py", None)
    assert watcher is not None
    assert (config.name, watcher.name) == ("from_program", "from_program")
    (folder / "watcher.toml").write_text('app = "two_app.py"')
    assert read(None, None)[0].name == "second"
    assert read("one_app.py", None)[0].name == "from_program"
    (folder / "other.toml").write_text('name = "alone"\n[source]\ndsn = "postgresql://h/x"')
    config, watcher = read(None, folder / "other.toml")
    assert (config.name, watcher) == ("alone", None)


def test_faults_of_the_program_and_of_the_settings_are_named_together(folder: Path) -> None:
    (folder / "watcher.toml").write_text('app = "broken_app.py"\n[journal]\nquota_bytes = "ten"\n')
    (folder / "broken_app.py").write_text("1 / 0")
    with pytest.raises(ConfigError) as caught:
        read(None, None)
    first, second = caught.value.faults
    assert first == "broken_app.py:1: ZeroDivisionError: division by zero"
    assert second.startswith("watcher.toml, line 3: journal.quota_bytes")
