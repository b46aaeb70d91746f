"""The lines of a file, and files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend_watcher.errors import ConfigError
from backend_watcher.service.config_file import FILE_BYTES_MAX, ConfigFile, read_config_file

TEXT = '''\
name = "shop" # a comment with [brackets]

[source]
"dsn" = """
[not.a.table]
x = 1"""
slot.name = 3
inline = { a = 1, b = [1, 2] }

[[subscription]]
tables = [
  "a",  # [[subscription]]
  "b",
]
[[ subscription ]]
name = "second"
[subscription.headers]
accept = 1
[[subscription.rules]]
x = 1
[[subscription.rules]]
x = 2
'''


def test_every_key_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "watcher.toml"
    path.write_text(TEXT)
    file = read_config_file(path)
    known = {
        ("name",): 1,
        ("source",): 3,
        ("source", "dsn"): 4,
        ("source", "slot", "name"): 7,
        ("source", "inline", "b"): 8,
        ("subscription", 0): 10,
        ("subscription", 0, "tables"): 11,
        ("subscription", 1): 15,
        ("subscription", 1, "name"): 16,
        ("subscription", 1, "headers"): 17,
        ("subscription", 1, "headers", "accept"): 18,
        ("subscription", 1, "rules", 1, "x"): 22,
    }
    assert {key: file.lines[key] for key in known} == known
    assert file.place(("source", "dsn", "deeper")) == f"{path}, line 4"
    assert file.place(("journal", "path")) is None


def test_after_a_very_long_value_there_are_no_lines(tmp_path: Path) -> None:
    path = tmp_path / "watcher.toml"
    path.write_text('name = "x"\ntables = [\n' + '"t",\n' * 20_000 + "]\nlast = 1\n")
    file = read_config_file(path)
    assert len(file.values["tables"]) == 20_000
    assert dict(file.lines) == {("name",): 1}


def test_without_a_path_the_file_here_is_read_if_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_config_file(None) == ConfigFile()
    (tmp_path / "watcher.toml").write_text("name = 'here'")
    assert read_config_file(None).values == {"name": "here"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name = shop", ", line 1: not TOML: invalid value; texts stand between quotes"),
        (b"a = 1\na = 2", ", at its end: not TOML: cannot overwrite a value"),
        (b"a = 1\n\xff", ", line 2: not UTF-8"),
        (b"#" * (FILE_BYTES_MAX + 1), f" is larger than {FILE_BYTES_MAX} bytes"),
        (b"a = " + b"[" * 100_000, ""),
        (b"a = " + b"9" * 10_000, ""),
    ],
)
def test_what_is_no_configuration_is_refused_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "watcher.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_config_file(path)
    (fault,) = caught.value.faults
    assert fault.startswith(f"{path}{said}")
    assert "\n" not in fault


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_config_file(tmp_path / "other.toml")
    with pytest.raises(ConfigError, match="is a folder"):
        read_config_file(tmp_path)
