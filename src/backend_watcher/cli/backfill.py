"""`watcher backfill`: rows that are already in the tables, delivered while changes go on."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backend_watcher.cli import settings
from backend_watcher.cli.screen import print_json, print_lines, print_table, span
from backend_watcher.cli.steer import App, Reason, do
from backend_watcher.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from backend_watcher.service.backfilling import Backfill
    from backend_watcher.service.config import Config

app = typer.Typer(
    help="Rows that are already there: start, list, pause, resume, cancel.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
Number = Annotated[int, typer.Argument(min=1, help="Its number, as `watcher backfill list` shows it.")]
LOOK_SECONDS = 0.5
SHOWN = 10


@app.command()
def start(
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE]…", help="Left out, all tables of the subscription.")
    ] = None,
    subscription: Annotated[
        list[str] | None, typer.Option("--subscription", "-s", help="Only for this one; may be given again.")
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", metavar="SQL", help='Only rows that this holds for: "shop = 7".')
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option("--key", help="Only this row; several columns as a,b; may be given again.")
    ] = None,
    rate: Annotated[float | None, typer.Option("--rate", metavar="ROWS", help="At most so many rows a second.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show how far it is, and return when it has ended.")] = False,
    reason: Reason = "",
    program: App = None,
    config: settings.ConfigPath = None,
    json: settings.Json = False,
) -> int:
    """Read tables, and deliver their rows as if each had just changed; a later change of a row wins."""
    from backend_watcher.service.backfilling import refuse_rows
    from backend_watcher.service.operate import who
    from backend_watcher.service.steering import BACKFILL, Request

    found, watcher = settings.read(program, config, complete=False)
    names = list(subscription or ())
    wanted = _tables(found, watcher, tables or [], names)
    refuse_rows(found.source, wanted)
    request = Request(
        operation=BACKFILL,
        subscription="",
        by=who(),
        reason=reason,
        subscriptions=names,
        tables=wanted,
        where=where,
        keys=[one.split(",") for one in key or ()],
        rows_per_second_max=rate,
    )
    before = _highest(found) if wait else 0
    code = do(program, config, request, json=json)
    return _follow(found, before) if wait and not json else code


def _tables(config: Config, watcher: Any, tables: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the tables by their full names: those that are named, or all that the subscriptions listen to."""
    from backend_watcher.events.message import FULL_NAME
    from backend_watcher.service.build import full_name
    from backend_watcher.service.declared import wanted_of

    every = wanted_of(config, watcher)
    there = sorted(one.name for one in every)
    if strange := sorted(set(names) - set(there)):
        raise ConfigError([f"subscription {name!r} is unknown; there are: {', '.join(there)}" for name in strange])
    wanted = [one for one in every if not names or one.name in names]
    watched = {full_name(table) for one in wanted for table in one.tables} - {FULL_NAME}
    if not tables:
        return sorted(watched)
    asked = [full_name(table) for table in tables]
    if others := [name for name in asked if name not in watched]:
        tables_there = ", ".join(sorted(watched))
        raise ConfigError([f"no subscription listens to {name}; there are: {tables_there}" for name in others])
    return asked


def _highest(config: Config) -> int:
    from backend_watcher.service.backfilling import backfills

    return max((one.number for one in backfills(config)), default=0)


def _follow(config: Config, before: int) -> int:
    """Show how far what was asked for is, until it has ended."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from backend_watcher.service.backfilling import backfills

    def ours() -> list[Backfill]:
        return [one for one in backfills(config) if one.number > before]

    if sys.stdout.isatty():
        with Live(console=Console(), transient=True, auto_refresh=False) as live:
            while any(one.is_open for one in ours()):
                live.update(Text("\n".join(_bar(one) for one in ours())), refresh=True)
                time.sleep(LOOK_SECONDS)
    else:
        while any(one.is_open for one in ours()):
            time.sleep(LOOK_SECONDS)
    show(ours())
    return ExitCode.CLEAN if all(one.state == "done" for one in ours()) else ExitCode.TEMPORARY


def _bar(job: Backfill) -> str:
    from backend_watcher.service.backfilling import progress

    share, rate, left = progress(job)
    width = 24
    filled = round((share or 0.0) * width)
    bar = "█" * filled + "·" * (width - filled)
    said = [f"{job.table}  {bar}", f"{job.rows:,} rows"]
    said += [f"{share:.0%}"] if share is not None else []
    said += [f"{rate:,.0f} rows/s"] if rate is not None else []
    said += [f"{span(left)} left"] if left is not None else []
    return "  ".join([*said, job.detail]).rstrip()


def show(jobs: Sequence[Backfill]) -> None:
    """Print backfills, newest last."""
    from backend_watcher.service.backfilling import progress

    rows = []
    for one in jobs:
        share, rate, left = progress(one)
        rows.append(
            [
                str(one.number),
                one.table,
                (", ".join(one.subscriptions) or "all") + (" (repair)" if one.repair else ""),
                str(one.state),
                f"{one.rows:,}",
                f"{share:.0%}" if share is not None else "–",
                f"{rate:,.0f}/s" if rate is not None else "–",
                span(left) if one.is_open else span(one.seconds),
                one.detail,
            ]
        )
    if rows:
        print_table(["backfill", "table", "for", "state", "rows", "done", "rate", "left / took", ""], rows)


@app.command("list")
def show_all(program: App = None, config: settings.ConfigPath = None, json: settings.Json = False) -> int:
    """List backfills, those that have ended too."""
    from backend_watcher.service.backfilling import backfills

    found, _ = settings.read_for_journal(program, config)
    jobs = backfills(found)
    if json:
        print_json({"backfills": [asdict(one) for one in jobs], "exit_code": 0})
    elif jobs:
        show(jobs)
    else:
        print_lines(["there was no backfill"])
    return 0


def _steer(operation: str, number: int, reason: str, program: str | None, config: Path | None, *, json: bool) -> int:
    from backend_watcher.service.operate import who
    from backend_watcher.service.steering import Request

    request = Request(operation=operation, subscription="", by=who(), reason=reason, number=number)
    return do(program, config, request, json=json)


@app.command()
def pause(
    number: Number,
    reason: Reason = "",
    program: App = None,
    config: settings.ConfigPath = None,
    json: settings.Json = False,
) -> int:
    """Read no further until `watcher backfill resume`; changes go on."""
    return _steer("backfill_pause", number, reason, program, config, json=json)


@app.command()
def resume(
    number: Number,
    reason: Reason = "",
    program: App = None,
    config: settings.ConfigPath = None,
    json: settings.Json = False,
) -> int:
    """Go on where the last chunk ended."""
    return _steer("backfill_resume", number, reason, program, config, json=json)


@app.command()
def cancel(
    number: Number,
    reason: Reason = "",
    program: App = None,
    config: settings.ConfigPath = None,
    json: settings.Json = False,
) -> int:
    """End it where it is; what was delivered stays."""
    return _steer("backfill_cancel", number, reason, program, config, json=json)
