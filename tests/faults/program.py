"""The program under fault: a cache, and a handler that writes down what it sees, in the order it sees it."""

import os

from backend_watcher import Change, Watcher
from backend_watcher.sinks import RedisCache

watcher = Watcher("faults")
watcher.to(RedisCache(key="item:{id}", url=os.environ["FAULTS_REDIS"]), table="items", name="cache")

# One write a line, straight to the kernel: what was written survives SIGKILL.
seen = os.open(os.environ["FAULTS_SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


@watcher.on("items")
async def note(change: Change) -> None:
    row = change.row
    version = row["version"] if change.new is not None else -1
    os.write(seen, f"{os.getpid()} {change.operation} {row['id']} {version} {change.event_id}\n".encode())
