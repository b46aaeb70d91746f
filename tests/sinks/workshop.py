"""A program whose functions run in processes, and the sink that runs them."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from backend_watcher.sinks.process import ProcessHandler
from backend_watcher.sinks.process_pool import Workers
from backend_watcher.sinks.process_wire import Setup

HEAD = """
import asyncio, atexit, ctypes, os, signal, sys, threading
from pathlib import Path
from backend_watcher import Change, Watcher
from backend_watcher.errors import HandlerError, Retry, RetryKind, Skip
watcher = Watcher("shop")
seen = os.open(Path(__file__).with_name("seen"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def note(*words):
    os.write(seen, " ".join(map(str, words)).encode() + b"\\n")
"""


def lines(folder: Path) -> list[list[str]]:
    """What the functions wrote down with `note`."""
    path = folder / "seen"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def gone(pid: int) -> bool:
    """Whether a process is there no more; one that only waits to be waited for is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def setup(folder: Path, program: str, memory_bytes: int | None = None) -> Setup:
    """Write a program, and say how to load it."""
    (folder / "program.py").write_text(HEAD + program)
    return Setup(str(folder / "program.py"), list(sys.path), os.getpid(), memory_bytes)


@asynccontextmanager
async def running(
    folder: Path,
    program: str,
    *,
    name: str = "work",
    batch: bool = False,
    processes: int = 1,
    timeout_seconds: float = 30.0,
    memory_bytes: int | None = None,
    coalesce: bool = False,
) -> AsyncIterator[ProcessHandler]:
    """Open a sink for the function `name` of a program."""
    workers = Workers(setup(folder, program, memory_bytes), processes)
    sink = ProcessHandler(name, workers, batch=batch, timeout_seconds=timeout_seconds, coalesce=coalesce)
    try:
        await sink.open()
        yield sink
    finally:
        await sink.close()
