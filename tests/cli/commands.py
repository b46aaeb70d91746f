"""Runs the real command line in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import backend_watcher

SECONDS_MAX = 60
CACHED_ORDERS = """
name = "shop"

[source]
dsn = "postgresql://127.0.0.1:1/shop"

[[subscription]]
name = "cache"
table = "orders"
sink = "redis_cache"
key = "order:{id}"
"""
"""A file of settings: one cache of one table, at a server that is not there."""

SOURCE = Path(backend_watcher.__file__).resolve().parents[1]


def environment(**more: str) -> dict[str, str]:
    """Our own environment without anything that would configure a watcher."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("WATCHER_", "DATABASE_URL", "PG"))
    }
    paths = [str(SOURCE), *(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)]
    return kept | {"PYTHONPATH": os.pathsep.join(str(Path(path).resolve()) for path in paths), "NO_COLOR": "1"} | more


@dataclass(frozen=True)
class Done:
    """What a command returned and said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on standard output."""
        (line,) = self.out.splitlines()
        found: dict[str, Any] = json.loads(line)
        return found


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "backend_watcher", *arguments]


def watcher(folder: Path, *arguments: str, **variables: str) -> Done:
    """Run one command to its end."""
    done = subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return Done(done.returncode, done.stdout, done.stderr)
