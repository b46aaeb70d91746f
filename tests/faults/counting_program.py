"""
A program that takes many rows and keeps none: how many came, and whether each followed the one before it.

FAULTS_SEEN gets a line after each batch: rows so far, rows out of order, the newest id, and the time.
"""

import os
import time

from backend_watcher import Change, Watcher

APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT

watcher = Watcher(os.environ.get("FAULTS_NAME", "faults"))
seen = os.open(os.environ["FAULTS_SEEN"], APPEND, 0o600)
rows, disordered, newest = 0, 0, 0


@watcher.on("large", batch=5000, concurrency=1)
async def count(changes: list[Change]) -> None:
    """Look at each id."""
    global rows, disordered, newest
    for change in changes:
        found = change.row["id"]
        disordered += found != newest + 1
        newest = found
    rows += len(changes)
    os.write(seen, f"{rows} {disordered} {newest} {time.time()}\n".encode())
