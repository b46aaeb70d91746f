"""`watcher outbox`: what the kind of source `outbox` needs on the server: made, printed, taken away."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from backend_watcher.cli import settings
from backend_watcher.cli.screen import print_json, print_lines

app = typer.Typer(
    help="The outbox on the source: install, print, remove.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Role = Annotated[str | None, typer.Option(help="Who is to read it; left out, the role of source.dsn.")]


@app.command()
def install(target: settings.Target = None, config: settings.ConfigPath = None, json: settings.Json = False) -> int:
    """Make the outbox, and the triggers of the watched tables. What is there already is left as it is."""
    from backend_watcher.service.outbox import install_outbox

    found, watcher = settings.read(target, config)
    done = asyncio.run(install_outbox(found, watcher))
    if json:
        print_json({"tables": list(done.tables), "changed": done.changed, "exit_code": 0})
    else:
        print_lines([f"{len(done.tables)} tables write into the outbox; triggers were made on {done.changed} of them"])
    return 0


@app.command("print")
def show(
    target: settings.Target = None,
    removal: Annotated[bool, typer.Option("--remove", help="The statements that take it away.")] = False,
    role: Role = None,
    config: settings.ConfigPath = None,
    json: settings.Json = False,
) -> int:
    """Print the statements of `install`, for who may run them; nothing is run."""
    from backend_watcher.service.outbox import outbox_script, removal_script

    if removal:
        script = removal_script()
    else:
        found, watcher = settings.read(target, config)
        script = asyncio.run(outbox_script(found, watcher, role))
    if json:
        print_json({"script": script, "exit_code": 0})
    else:
        print_lines(script.splitlines())
    return 0


@app.command()
def remove(
    target: settings.Target = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it: what was not read is lost.")] = False,
    config: settings.ConfigPath = None,
    json: settings.Json = False,
) -> int:
    """Take the outbox and its triggers away, with what was not read."""
    from backend_watcher.errors import ConfigError
    from backend_watcher.service.outbox import remove_outbox

    if not yes:
        raise ConfigError(["what the outbox holds and nobody has read would be lost"], remedy="Say it with --yes.")
    found, _ = settings.read(target, config)
    triggers = asyncio.run(remove_outbox(found))
    if json:
        print_json({"triggers": triggers, "exit_code": 0})
    else:
        print_lines([f"the outbox is gone, and {triggers} triggers with it"])
    return 0
