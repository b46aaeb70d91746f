"""A program that keeps the tables of pgbench equal in the database that FAULTS_REPLICA names."""

import os

from backend_watcher import Watcher
from backend_watcher.sinks import PostgresReplica

TABLES = ("pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history")

watcher = Watcher(os.environ.get("FAULTS_NAME", "faults"))
watcher.to(PostgresReplica(os.environ["FAULTS_REPLICA"]), table=TABLES, name="replica")
