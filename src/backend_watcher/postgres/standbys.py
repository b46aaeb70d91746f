"""Whether PostgreSQL would take a session for a synchronous standby. Pure."""

from __future__ import annotations

import re

_LIST = re.compile(r"\s*(?:(?:(?:first|any)\s+)?\d+\s*\((?P<names>.*)\)|(?P<plain>.*))\s*", re.IGNORECASE | re.DOTALL)
_NAME = re.compile(r'"(?:[^"]|"")*"|[^\s,"]+')


def standby_names(setting: str) -> tuple[str, ...]:
    """Read the names in `synchronous_standby_names`: `a, b`, `2 (a, b)`, `FIRST 1 (a, *)`, `ANY 1 ("a b", c)`."""
    match = _LIST.fullmatch(setting)
    assert match is not None  # its last branch takes any text
    listed = match["names"] if match["names"] is not None else match["plain"]
    return tuple(
        name[1:-1].replace('""', '"') if name.startswith('"') else name for name in _NAME.findall(listed or "")
    )


def chooses(setting: str, application_name: str) -> bool:
    """Say whether commits would wait for a walsender of this name. PostgreSQL compares without regard to case."""
    return any(name == "*" or name.lower() == application_name.lower() for name in standby_names(setting))
