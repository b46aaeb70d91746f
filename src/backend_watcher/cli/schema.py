"""`watcher schema`: what became of the watched tables, and marking it as seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from backend_watcher.cli import settings
from backend_watcher.cli.screen import print_json, print_lines, print_table
from backend_watcher.cli.steer import App, Reason, do
from backend_watcher.errors import ConfigError

if TYPE_CHECKING:
    from backend_watcher.events.schema_change import SchemaChange

app = typer.Typer(
    help="Schema changes of watched tables: list, seen, triggers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


def show(changes: Sequence[SchemaChange], limit: int | None = None) -> None:
    """Print the newest of them, and how many more there are."""
    if not changes:
        return
    shown = changes[-limit:] if limit is not None else changes
    rows = [
        (
            str(one.number),
            datetime.fromtimestamp(one.at).isoformat(" ", "seconds"),  # noqa: DTZ006 for people, in their zone
            one.table,
            f"{one.what}: {one.reason}",
            "yes" if one.needs_reread else "no",
            one.remedy,
        )
        for one in shown
    ]
    print_table(("schema change", "noticed", "table", "what", "re-read", "what to do"), rows)
    if len(shown) < len(changes):
        print_lines([f"and {len(changes) - len(shown)} older ones; `watcher schema list` shows all"])


@app.command("list")
def show_all(program: App = None, config: settings.ConfigPath = None, json: settings.Json = False) -> int:
    """List the schema changes that nobody has marked as seen."""
    from backend_watcher.service.schema import schema_changes

    found, _ = settings.read_for_journal(program, config)
    changes = schema_changes(found)
    if json:
        print_json({"schema_changes": [asdict(one) for one in changes], "exit_code": 0})
    elif changes:
        show(changes)
    else:
        print_lines(["no schema change is open"])
    return 0


@app.command()
def triggers(json: settings.Json = False) -> int:
    """Print the statements that make the event triggers of source.ddl_triggers; nothing is run."""
    from backend_watcher.service.schema import trigger_script

    if json:
        print_json({"script": trigger_script(), "exit_code": 0})
    else:
        print_lines(trigger_script().splitlines())
    return 0


@app.command()
def seen(
    number: Annotated[int | None, typer.Argument(min=1, help="Its number, as `watcher schema list` shows it.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that are open.")] = False,
    reason: Reason = "",
    program: App = None,
    config: settings.ConfigPath = None,
    json: settings.Json = False,
) -> int:
    """Mark a schema change as seen and dealt with; it goes from the status into the audit."""
    from backend_watcher.service.operate import who
    from backend_watcher.service.steering import SEEN, Request

    if (number is None) != every:
        raise ConfigError(["give a number, or --all"], remedy="`watcher schema list` shows the numbers.")
    request = Request(operation=SEEN, subscription="", by=who(), reason=reason, number=number)
    return do(program, config, request, json=json)
