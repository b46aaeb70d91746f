"""`watcher run`: works until SIGTERM or Ctrl-C, then drains."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from backend_watcher.cli import settings
from backend_watcher.cli.screen import print_json


def run(
    target: settings.Target = None,
    config: settings.ConfigPath = None,
    adopt_slot: Annotated[
        bool,
        typer.Option(
            "--adopt-slot", help="Take a slot that this journal does not know, or a changed publication; may skip."
        ),
    ] = False,
    json: settings.Json = False,
) -> int:
    """Watch, and deliver every change; stops at SIGTERM or Ctrl-C, when all is drained."""
    from backend_watcher.cli.logs import configure
    from backend_watcher.service.supervise import supervise

    found, watcher = settings.read(target, config)
    configure(as_json=True if json else None)
    try:
        code = asyncio.run(supervise(found, watcher, adopt_slot=adopt_slot))
    except KeyboardInterrupt:
        code = 0
    if json:
        print_json({"exit_code": code})
    return code
