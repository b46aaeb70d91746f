"""
A program that watches whatever FAULTS_TABLES lists, a file of JSON, with one function that writes down what it sees.
"""

import json
import os
from pathlib import Path

from backend_watcher import Change, Watcher

watcher = Watcher("faults")
seen = os.open(os.environ["FAULTS_SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


@watcher.on(*json.loads(Path(os.environ["FAULTS_TABLES"]).read_text()), batch=500)
async def note(changes: list[Change]) -> None:
    lines = [json.dumps([change.table.full_name, change.row["id"], len(change.row)]) + "\n" for change in changes]
    os.write(seen, "".join(lines).encode())
