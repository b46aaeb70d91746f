"""
`watcher`: reads the command line, calls one command, and turns whatever happens into an exit code.

| code | means |
|------|-------|
| 0    | done, or stopped as asked |
| 2    | the command line, a setting or the program is wrong |
| 3    | the source is there, and cannot be watched as it is |
| 4    | going on could lose changes |
| 5    | `watcher verify` or `repair` found a difference that stays |
| 75   | not now: something does not answer; try again |
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from backend_watcher.cli import (
    backfill,
    check,
    cutover,
    demo,
    dev,
    init,
    journal,
    outbox,
    parked,
    repair,
    run,
    schema,
    status,
    steer,
    tail,
    verify,
)
from backend_watcher.cli.failure import Failure, failure_of, report
from backend_watcher.cli.screen import print_json
from backend_watcher.errors import ExitCode

INTERRUPTED = 130
ENDLESS = ("run", "dev", "tail")
"""Commands that only a person ends: that is no failure of theirs."""

app = typer.Typer(
    name="watcher",
    help="Hears every change that PostgreSQL commits, and keeps caches, copies and services in step with it.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo.demo)
app.command()(init.init)
app.command()(check.check)
app.command()(run.run)
app.command()(status.status)
app.command()(tail.tail)
app.command()(steer.pause)
app.command()(steer.resume)
app.command()(steer.replay)
app.add_typer(parked.app, name="parked")
app.add_typer(backfill.app, name="backfill")
app.command()(verify.verify)
app.command()(cutover.cutover)
app.command()(repair.repair)
app.add_typer(schema.app, name="schema")
app.add_typer(outbox.app, name="outbox")
app.add_typer(journal.app, name="journal")
app.command()(steer.forget)
app.command()(steer.audit)
app.command()(steer.skip)
app.command()(dev.dev)


def _show_version(wanted: bool) -> None:
    if wanted:
        from backend_watcher.version import __version__, is_compiled

        if "--json" in sys.argv:
            print_json({"version": __version__, "compiled": is_compiled()})
        else:
            typer.echo(f"backend-watcher {__version__} ({'compiled' if is_compiled() else 'pure Python'})")
        raise typer.Exit


@app.callback()
def watcher(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", hidden=True)] = False,
) -> None:
    """Hear every change that PostgreSQL commits, and keep caches, copies and services in step with it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    as_json = "--json" in words
    try:
        # An explicit program name: under `python -m` it would be the path of a file.
        code = app(args=words, prog_name="watcher", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except (BrokenPipeError, SystemExit) as error:
        # The reader of our output has gone (`watcher tail | head`), which typer may turn into an exit.
        if isinstance(error, BrokenPipeError) and words[0] == "run":
            return report(failure_of(error), as_json=as_json)  # not our output: some connection
        if not isinstance(error, BrokenPipeError) and not isinstance(error.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return ExitCode.CLEAN
    except Exception as error:  # noqa: BLE001 the last resort: a person never sees a bare traceback
        return report(_usage(error) or failure_of(error), as_json=as_json)
    if code == INTERRUPTED and words[0] in ENDLESS:
        return ExitCode.CLEAN
    return code if isinstance(code, int) else ExitCode.CLEAN


def entry() -> int:
    """Run as a process of its own, which ends with the command, whatever a function of the user's still does."""
    code = main()
    if "run" in sys.argv[1:2]:
        from backend_watcher.service.supervise import exit_soon

        exit_soon(code)
    return code


def _usage(error: Exception) -> Failure | None:
    """Say what is wrong with the command line; typer's errors for that are known by what they can do."""
    message = getattr(error, "format_message", None)
    if not callable(message):
        return None
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "watcher"
    return Failure("UsageError", [str(message())], f"See `{path} --help`.", ExitCode.CONFIGURATION)
