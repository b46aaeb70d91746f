"""A replica that begins with the rows that are there, and a function that writes down how many were read for it."""

import os

from backend_watcher import Change, Watcher
from backend_watcher.sinks import PostgresReplica

watcher = Watcher(os.environ.get("FAULTS_NAME", "faults"))
watcher.to(PostgresReplica(os.environ["FAULTS_REPLICA"]), table="items", name="replica", start="backfill")

seen = os.open(os.environ["FAULTS_SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


@watcher.on("items", start="backfill", batch=1000)
async def count(changes: list[Change]) -> None:
    read = sum(change.operation == "read" for change in changes)
    if read:
        os.write(seen, f"{read}\n".encode())
