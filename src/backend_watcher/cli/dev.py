"""`watcher dev`: a PostgreSQL to develop against, ready to be watched."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from backend_watcher.cli import settings
from backend_watcher.cli.screen import print_json, print_lines
from backend_watcher.errors import ConfigError, EmbeddedError

KEPT = Path(".watcher/postgres")
LOOK_SECONDS = 1.0


def dev(
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Keep nothing after the end.")] = False,
    folder: Annotated[Path, typer.Option("--folder", help="Where the data is kept.")] = KEPT,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="A fixed port.")] = None,
    database: Annotated[str, typer.Option("--database", help="Made if it is missing.")] = "postgres",
    json: settings.Json = False,
) -> int:
    """Start a PostgreSQL with logical replication, print its DSN, and keep it until Ctrl-C."""
    try:
        from backend_watcher.embedded import EmbeddedPostgres
    except ImportError as error:
        raise ConfigError([f"watcher dev needs a package: {error}"], remedy=INSTALL) from None
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with EmbeddedPostgres(None if ephemeral else folder, port=port, database=database) as server:
        if json:
            known = {"dsn": server.dsn, "port": server.port, "version": server.version, "pid": server.pid}
            print_json(known | {"folder": None if ephemeral else str(server.folder)})
        else:
            where = "nothing is kept" if ephemeral else f"its data stays in {folder}"
            print_lines(
                [
                    f"PostgreSQL {server.version} runs until Ctrl-C; {where}.",
                    "",
                    f"  export DATABASE_URL='{server.dsn}'",
                    "",
                ]
            )
        while not stop.wait(LOOK_SECONDS):
            if not server.running:
                raise EmbeddedError(f"PostgreSQL ended by itself; see {server.log_path}")
    return 0


INSTALL = "pip install 'backend-watcher[embedded]'"
