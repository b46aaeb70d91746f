"""
The program under fault. FAULTS_SINKS says which sinks it has, all on the tables of `workload.py`:

    handler   writes down what it sees, in the order it sees it: FAULTS_SEEN
    cache     Redis: FAULTS_REDIS
    file      the sink `stdout` into a file: FAULTS_LINES

FAULTS_DELAY is how many seconds the handler takes for each change, and with FAULTS_BLOCKS it blocks the event loop.
FAULTS_CHECKPOINT_BYTES is how much is written to the journal's WAL between two checkpoints.
FAULTS_SYNCED is a folder that always holds the journal's files as they were at the last fsync (`power.py`); with
FAULTS_UNSYNCED=n the process is killed at the nth, with everything that was written for it not known to be there.
"""

import asyncio
import os
import shutil
import signal
import threading
from pathlib import Path

from backend_watcher import Change, Watcher, probes
from backend_watcher.journal import space
from backend_watcher.sinks import RedisCache, Stdout

TABLES = ("items", "checking", "savings")
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT

sinks = os.environ.get("FAULTS_SINKS", "handler,cache").split(",")
delay = float(os.environ.get("FAULTS_DELAY", "0"))
watcher = Watcher(os.environ.get("FAULTS_NAME", "faults"))


async def pass_time(seconds: float) -> None:
    """Take as long as a slow function does."""
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, passed.set)
    await passed.wait()


syncs_left = int(os.environ.get("FAULTS_UNSYNCED", "0"))


def keep_synced(folder: Path, journal: Path) -> None:
    """Copy the journal's files; a kill in the middle leaves the copy before it."""
    global syncs_left
    syncs_left -= 1
    if syncs_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    fresh = folder / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for path in (journal, journal.with_name(journal.name + "-wal")):
        if path.exists():
            shutil.copyfile(path, fresh / path.name)
    # The one with the highest number counts; the rename makes it whole at once.
    numbers = sorted(int(path.name) for path in folder.glob("[0-9]*"))
    fresh.rename(folder / str(numbers[-1] + 1 if numbers else 1))
    for old in numbers[:-1]:
        shutil.rmtree(folder / str(old))


if size := os.environ.get("FAULTS_CHECKPOINT_BYTES"):
    space.CHECKPOINT_BYTES = int(size)

if synced := os.environ.get("FAULTS_SYNCED"):
    for place in ("journal.after_commit", "journal.after_checkpoint"):
        probes.arm(place, lambda: keep_synced(Path(synced), Path(f".watcher/{watcher.name}.journal")))

if "cache" in sinks:
    for table in TABLES:
        cache = RedisCache(key=f"{table}:{{id}}", url=os.environ["FAULTS_REDIS"])
        watcher.to(cache, table=table, name=f"cache_{table}")

if "file" in sinks:
    # Unbuffered, straight to the kernel: what was written survives SIGKILL.
    lines = open(os.environ["FAULTS_LINES"], "ab", buffering=0)  # noqa: SIM115 open as long as the process
    watcher.to(Stdout(lines), table=TABLES, name="file")

if "handler" in sinks:
    seen = os.open(os.environ["FAULTS_SEEN"], APPEND, 0o600)

    @watcher.on(*TABLES)
    async def note(change: Change) -> None:
        if delay and "FAULTS_BLOCKS" in os.environ:
            threading.Event().wait(delay)
        elif delay:
            await pass_time(delay)
        row = change.row
        version, balance = (row["version"], row.get("balance", 0)) if change.new is not None else (-1, 0)
        fields = (os.getpid(), change.table.name, change.operation, row["id"], version, balance, change.event_id)
        os.write(seen, " ".join(map(str, fields)).encode() + b"\n")
