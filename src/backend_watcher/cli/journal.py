"""`watcher journal`: a backup of the watcher's own state, and how it is put back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from backend_watcher.cli import settings
from backend_watcher.cli.screen import print_json, print_lines
from backend_watcher.errors import ConfigError

app = typer.Typer(
    help="The watcher's own state, one file: backup, restore.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

App = Annotated[str | None, typer.Option("--app", help="The program, if the settings name none.")]


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Where to; nothing is overwritten.")],
    program: App = None,
    config: settings.ConfigPath = None,
    json: settings.Json = False,
) -> int:
    """Copy the journal as it is now, while the watcher runs or not."""
    from backend_watcher.service.copies import back_up

    found, _ = settings.read_for_journal(program, config)
    plain = back_up(found, file).as_plain()
    if json:
        print_json(plain)
    else:
        print_lines([f"{file} has the journal up to {plain['durable_lsn']}, {plain['blocks']} blocks"])
    return 0


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="What `watcher journal backup` has written.")],
    yes: Annotated[
        str | None, typer.Option("--yes", metavar="NAME", help="The watcher's name: its journal is replaced.")
    ] = None,
    program: App = None,
    config: settings.ConfigPath = None,
    json: settings.Json = False,
) -> int:
    """
    Put a copy in the journal's place, while no watcher runs; the journal that was there is kept aside.

    Where PostgreSQL was told that more is safe than the copy has, `watcher run` refuses it and says what is missing.
    """
    from backend_watcher.service.copies import restore

    found, _ = settings.read_for_journal(program, config)
    if yes != found.name:
        raise ConfigError(
            [f"the journal {found.journal.path} would be replaced"], remedy=f"If that is meant: `--yes {found.name}`."
        )
    plain = restore(found, file).as_plain()
    if json:
        print_json(plain)
        return 0
    said = [f"the journal ends at {plain['durable_lsn']} now"]
    said += [f"the one before it is {plain['aside']}"] if plain["aside"] else []
    print_lines(said)
    return 0
