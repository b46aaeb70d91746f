"""
A cache that begins with the rows that are there, and a handler that writes down which rows were read for it.

FAULTS_CHUNK is how many rows a chunk has. With FAULTS_UNFILTERED what the stream brought is not looked at, as in a
backfill between two plain watermarks.
"""

import os

from backend_watcher import Change, Watcher
from backend_watcher.capture import pace, window
from backend_watcher.sinks import RedisCache

TABLES = ("items", "words", "pairs")
KEYS = {"items": "{id}", "words": "{word}", "pairs": "{a}:{b}"}

pace.ROWS_FIRST = pace.ROWS_MAX = pace.ROWS_MIN = int(os.environ.get("FAULTS_CHUNK", "200"))

if "FAULTS_UNFILTERED" in os.environ:
    window.Window.touched = lambda self, snapshot, table: window.Touched(set(), False)
    window.Window.riddles = lambda self, snapshot: frozenset()

watcher = Watcher(os.environ.get("FAULTS_NAME", "faults"))
for table in TABLES:
    cache = RedisCache(key=f"{table}:{KEYS[table]}", url=os.environ["FAULTS_REDIS"])
    watcher.to(cache, table=table, name=f"cache_{table}", start="backfill")

seen = os.open(os.environ["FAULTS_SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


@watcher.on("items", start="backfill")
async def note(change: Change) -> None:
    if change.operation == "read":
        os.write(seen, f"{change.row['id']}\n".encode())
