"""
The program under fault. FAULTS_SINKS says which sinks it has, all on the tables of `workload.py`:

    handler   writes down what it sees, in the order it sees it: FAULTS_SEEN
    cache     Redis: FAULTS_REDIS
    file      the sink `stdout` into a file: FAULTS_LINES

FAULTS_DELAY is how many seconds the handler takes for each change.
"""

import asyncio
import os

from backend_watcher import Change, Watcher
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
        if delay:
            await pass_time(delay)
        row = change.row
        version, balance = (row["version"], row.get("balance", 0)) if change.new is not None else (-1, 0)
        fields = (os.getpid(), change.table.name, change.operation, row["id"], version, balance, change.event_id)
        os.write(seen, " ".join(map(str, fields)).encode() + b"\n")
