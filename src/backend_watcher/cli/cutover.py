"""`watcher cutover`: says whether a replica can take over from its source, and mends its sequences."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from backend_watcher.cli import settings
from backend_watcher.cli.screen import print_json, print_lines, print_table


def cutover(
    subscription: Annotated[str, typer.Argument(help="The subscription whose sink is a PostgreSQL replica.")],
    set_sequences: Annotated[
        bool, typer.Option("--set", help="Let the replica's sequences go on behind the source's; never back.")
    ] = False,
    app: Annotated[str | None, typer.Option("--app", help="The program, if the settings name none.")] = None,
    config: settings.ConfigPath = None,
    json: settings.Json = False,
) -> int:
    """
    Say whether a replica has all that the source has, and whether its sequences would go on behind the source's.

    Exit code 0: ready; 75: not yet, with the reasons.
    """
    from backend_watcher.service.cutover import cut_over

    found, watcher = settings.read(app, config)
    readiness = asyncio.run(cut_over(found, watcher, subscription, set_sequences=set_sequences))
    plain = readiness.as_plain()
    if json:
        print_json(plain)
        return readiness.exit_code
    rows = [
        (one["table"], one["column"], one["sequence"], _number(one["source"]), _number(one["replica"]), one["state"])
        for one in plain["sequences"]
    ]
    if rows:
        print_table(("table", "column", "sequence", "source", "replica", "state"), rows)
    if set_sequences:
        print_lines([f"{readiness.changed} sequences were set"])
    print_lines([f"not ready: {reason}" for reason in readiness.reasons])
    if not readiness.reasons:
        print_lines([f"ready: all that was committed before {readiness.position} is at the replica"])
    return readiness.exit_code


def _number(value: int | None) -> str:
    return "–" if value is None else str(value)
