"""`watcher.toml` as values, and the line each of them stands on."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from backend_watcher.errors import ConfigError

FILE_BYTES_MAX = 1 << 20
STATEMENT_LINES_MAX = 60
"""Lines of one value; after a longer one there are no line numbers, and nothing else is lost."""

DEFAULT_PATH = Path("watcher.toml")

KeyPath: TypeAlias = tuple[str | int, ...]

_AT = re.compile(r"(.*?) \(at (?:line (\d+), column \d+|(end of document))\)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a file says; `lines` has the line of each key path, as far as it is known."""

    path: Path | None = None
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    lines: Mapping[KeyPath, int] = field(default_factory=dict, repr=False)

    def place(self, path: KeyPath) -> str | None:
        """Say where a key path stands, or its nearest parent; None if nothing of it is in the file."""
        while path:
            line = self.lines.get(path)
            if line is not None:
                return f"{self.path}, line {line}"
            path = path[:-1]
        return None


def read_config_file(path: Path | None) -> ConfigFile:
    """
    Read a file; without a path `watcher.toml` here, if there is one.

    Raises ConfigError for a file that is not there, cannot be read, or is not TOML.
    """
    if path is None:
        if not DEFAULT_PATH.exists():
            return ConfigFile()
        path = DEFAULT_PATH
    text = _text_of(path)
    try:
        return ConfigFile(path, tomllib.loads(text), dict(_lines_of(text)))
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"{path}{_complaint(error)}"], remedy="Correct the file; toml.io shows the form.") from None


def _text_of(path: Path) -> str:
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise ConfigError([f"{path} {what}"], remedy="Name a file with --config; `watcher init` writes one.")
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a file name"
        raise ConfigError([f"{path} cannot be read: {reason}"], remedy="Let the watcher read it.") from None
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError([f"{path} is larger than {FILE_BYTES_MAX} bytes: it is not a configuration"])
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}, line {line}: not UTF-8"], remedy="Save the file as UTF-8.") from None


def _complaint(error: Exception) -> str:
    found = _AT.fullmatch(str(error)) if isinstance(error, tomllib.TOMLDecodeError) else None
    if found is None:
        return ": not TOML"
    line = f", line {found[2]}" if found[2] else ", at its end"
    what = found[1]
    hint = "; texts stand between quotes" if what == "Invalid value" else ""
    return f"{line}: not TOML: {what[:1].lower()}{what[1:]}{hint}"


def _lines_of(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Find the line of each key. A statement ends where what was read of it so far is TOML by itself."""
    lines = text.split("\n")
    counts: dict[KeyPath, int] = {}
    header: KeyPath = ()
    at = 0
    while at < len(lines):
        statement, end = _statement(lines, at)
        if statement is None:
            return
        if statement:
            if lines[at].lstrip().startswith("["):
                header = _header(statement, counts)
                yield header, at + 1
            else:
                yield from ((header + path, at + 1) for path in _paths(statement))
        at = end


def _statement(lines: list[str], at: int) -> tuple[dict[str, Any] | None, int]:
    for end in range(at + 1, min(len(lines), at + STATEMENT_LINES_MAX) + 1):
        try:
            return tomllib.loads("\n".join(lines[at:end])), end
        except (ValueError, RecursionError):
            continue
    return None, at


def _header(statement: dict[str, Any], counts: dict[KeyPath, int]) -> KeyPath:
    """Return the path that a `[table]` or `[[array of tables]]` line opens; arrays are counted in `counts`."""
    path: KeyPath = ()
    value: Any = statement
    while isinstance(value, dict) and value:
        ((key, value),) = value.items()
        path += (key,)
        if isinstance(value, list):
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path += (counts[path],)
    return path


def _paths(value: Any, above: KeyPath = ()) -> Iterator[KeyPath]:
    """Name every key inside a value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*above, key)
            yield from _paths(inner, (*above, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _paths(inner, (*above, index))
