"""
A program whose sinks keep rows by their keys: a cache, a replica (FAULTS_REPLICA), and a function (FAULTS_SEEN).

The function writes a line of JSON for each change: what a mirror of its own would need.
"""

import json
import os

from backend_watcher import Change, Watcher
from backend_watcher.sinks import PostgresReplica, RedisCache

CACHED = {
    "keyed": "keyed:{id}",
    "pairs": "pairs:{b}:{a}",
    "parts": "parts:{id}:{at}",
    "named": "named:{email}",
}
TABLES = (*CACHED, "bag", "done")

watcher = Watcher(os.environ.get("FAULTS_NAME", "faults"))
watcher.to(PostgresReplica(os.environ["FAULTS_REPLICA"], create=True), table=TABLES, name="replica")
for table, key in CACHED.items():
    watcher.to(RedisCache(key=key, url=os.environ["FAULTS_REDIS"]), table=table, name=f"cache_{table}")

seen = os.open(os.environ["FAULTS_SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


@watcher.on(*TABLES)
async def mirror(change: Change) -> None:
    told = {
        "event_id": change.event_id,
        "table": change.table.name,
        "operation": change.operation.value,
        "key": list(change.key) if change.new is not None or change.old is not None else None,
        "key_before": list(change.key_before) if change.key_before is not None else None,
        "new": None if change.new is None else change.new.to_dict(),
        "old": list(change.old.values()) if change.old is not None and not change.table.primary_key else None,
    }
    os.write(seen, json.dumps(told).encode() + b"\n")
