"""`watcher run`: works until SIGTERM or Ctrl-C, then drains."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from backend_watcher.cli import settings
from backend_watcher.cli.screen import print_json

WORKERS_MAX = 1000


def run(
    target: settings.Target = None,
    config: settings.ConfigPath = None,
    adopt_slot: Annotated[
        bool,
        typer.Option(
            "--adopt-slot", help="Take a slot that this journal does not know, or a changed publication; may skip."
        ),
    ] = False,
    workers: Annotated[
        int, typer.Option("--workers", min=0, max=WORKERS_MAX, help="Run the program's functions in so many processes.")
    ] = 0,
    json: settings.Json = False,
) -> int:
    """Watch, and deliver every change; SIGTERM or Ctrl-C drains and stops, SIGHUP reads the settings again."""
    from backend_watcher.cli.logs import configure
    from backend_watcher.service.config import find_app, load_config
    from backend_watcher.service.output import print_line_by_line
    from backend_watcher.service.supervise import supervise

    print_line_by_line()

    found, watcher = settings.read(target, config)
    configure(as_json=True if json else None)
    try:
        program = target or find_app(config, os.environ)
        code = asyncio.run(
            supervise(
                found,
                watcher,
                adopt_slot=adopt_slot,
                target=program,
                workers=workers,
                read_again=lambda: load_config(config, os.environ, watcher=watcher),
            )
        )
    except KeyboardInterrupt:
        code = 0
    if json:
        print_json({"exit_code": code})
    return code
