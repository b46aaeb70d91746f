"""
Functions that fail in every way there is, each a subscription of its own; the row with id 0 is their poison.

FAULTS_FORM says where they run: `loop`, `thread`, or `process`, which shares the processes of `--workers`. The function
`quick` is the neighbour that must not notice: it writes down how late it saw each change, in milliseconds.
"""

import asyncio
import ctypes
import os
import signal
import sys
import threading
import time

from backend_watcher import Change, Watcher

APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT
PATIENCE = {"attempts": 3, "retry_seconds_max": 0.2, "timeout_seconds": 0.5, "concurrency": 2}
POISON = 0

form = os.environ["FAULTS_FORM"]
seen = os.open(os.environ["FAULTS_SEEN"], APPEND, 0o600)
watcher = Watcher("faults")


def note(name: str, change: Change, *more: object) -> None:
    words = (name, change.row["id"], change.row["version"], *more)
    os.write(seen, " ".join(map(str, words)).encode() + b"\n")


def deeper() -> None:
    deeper()


def compute() -> None:
    while True:
        pass


def hog() -> None:
    held = []
    while True:
        held.append(bytearray(16 << 20))


async def lost() -> None: ...


def fail() -> None:
    raise ValueError("no")


def cancel() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


PLAIN = {
    "raises": fail,
    "waits": lambda: threading.Event().wait(),
    "computes": compute,
    "exits": lambda: sys.exit(3),
    "recurses": deeper,
    "wrong_type": lost,
}
ENDS = {
    "ends": lambda: os._exit(3),
    "is_killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "faults_in_c": lambda: ctypes.string_at(0),
}
ON_LOOP = ("raises", "waits", "exits", "recurses", "cancels")
BLOCKS = "blocks_the_loop"


def names() -> list[str]:
    """Which functions there are; the poison of all is parked."""
    return {"loop": [*ON_LOOP], "thread": [*PLAIN], "process": [*PLAIN, *ENDS, "cancels", "hogs"]}[form]


def plain(name: str, poison) -> None:
    more = {"run_in": "process", "memory_bytes": 400 << 20} if name == "hogs" else {}

    @watcher.on("items", name=name, **PATIENCE, **more)
    def function(change: Change) -> object:
        if change.row["id"] == POISON:
            return poison()
        return note(name, change)


def on_loop(name: str, poison) -> None:
    @watcher.on("items", name=name, **PATIENCE)
    async def function(change: Change) -> None:
        if change.row["id"] == POISON:
            if name != "waits":
                poison()
            await asyncio.Event().wait()
        note(name, change)


for name in names():
    if form == "loop" or name == "cancels":
        on_loop(name, cancel if name == "cancels" else PLAIN[name])
    else:
        plain(name, hog if name == "hogs" else {**PLAIN, **ENDS}[name])

if form == "loop":
    # Nobody can end it. It stands still, alone.
    on_loop(BLOCKS, compute)


@watcher.on("items", name="quick", run_in="loop")
async def quick(change: Change) -> None:
    note("quick", change, (time.time() - change.commit_time.timestamp()) * 1000)
