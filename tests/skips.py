"""
Which skips are no failure where every service has to be there: those that no service would mend.

A server that is older than what a test is about: the reason says `… came with PostgreSQL 15`, and is believed only
where the server that the tests start is older. A run that is not root's. And a program that only checks what files say.
"""

from __future__ import annotations

import re
import subprocess
from functools import lru_cache

import pytest

from backend_watcher.embedded.install import find_postgres

CAME_WITH = re.compile(r"came with PostgreSQL (\d+)")
NOT_ROOT = "only root"
NO_LINTER = "promtool is not installed"


def needs(major: int, what: str, server_version: int) -> None:
    """Skip the test on a server that is older than `major`; `server_version` is as libpq tells it."""
    if server_version < major * 10_000:
        pytest.skip(f"{what} came with PostgreSQL {major}")


def is_excused(reason: str, major: int | None = None) -> bool:
    """Say whether a test may be skipped for this reason; `major` is the version of the server that the tests start."""
    if NOT_ROOT in reason or NO_LINTER in reason:
        return True
    needed = CAME_WITH.search(reason)
    return needed is not None and (major or server_major()) < int(needed[1])


@lru_cache
def server_major() -> int:
    """Return the version of the server that the tests start."""
    program = find_postgres().program("postgres")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    return int(said.split()[2].partition(".")[0])
