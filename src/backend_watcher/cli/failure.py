"""Whatever went wrong, as lines for a person, one object for a program, and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from backend_watcher.cli.screen import print_json
from backend_watcher.errors import ConfigError, ExitCode, PreflightFailed, WatcherError

CRASH_FILE = Path(".watcher/crash.txt")
MESSAGE_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command did not do what it was asked."""

    kind: str
    faults: Sequence[str]
    remedy: str
    exit_code: int

    def as_json(self) -> dict[str, Any]:
        """Return it as the object that `--json` prints."""
        error = {
            "kind": self.kind,
            "message": "; ".join(self.faults),
            "faults": list(self.faults),
            "remedy": self.remedy,
        }
        return {"error": error, "exit_code": self.exit_code}


def failure_of(error: Exception) -> Failure:
    """Say an exception in our words; one that we do not know is kept in a file."""
    if isinstance(error, ConfigError | PreflightFailed):
        return Failure(type(error).__name__, error.faults, error.remedy, error.exit_code)
    if isinstance(error, WatcherError):
        faults = [line for line in error.message.splitlines() if line.strip()]
        return Failure(type(error).__name__, faults or [type(error).__name__], error.remedy, error.exit_code)
    if isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        return failure_of(error.exceptions[0])
    kept = _keep(error)
    said = (str(error).strip().splitlines() or [""])[0]
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    remedy = f"Report it, with {kept}." if kept else "Report it, with what WATCHER_DEBUG=1 shows."
    return Failure("Unexpected", [f"the watcher did not expect this: {what}"], remedy, ExitCode.TEMPORARY)


def report(failure: Failure, *, as_json: bool) -> int:
    """Print a failure and return its exit code."""
    if as_json:
        print_json(failure.as_json())
    else:
        sys.stdout.flush()
        for fault in failure.faults:
            print_fault(fault)
        print_remedy(failure.remedy)
    return failure.exit_code


def print_fault(text: str) -> None:
    """Print one fault as one line on standard error."""
    typer.echo(f"{typer.style('error:', fg='red', bold=True)} {_one_line(text)}", err=True)


def print_remedy(text: str) -> None:
    """Print what would mend it."""
    typer.echo(f"{typer.style('remedy:', bold=True)} {_one_line(text)}", err=True)


def _one_line(text: str) -> str:
    words = " ".join(text.split())[:MESSAGE_MAX]
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words)


def _keep(error: Exception) -> Path | None:
    """Write the traceback where it can be found, or, with WATCHER_DEBUG, where it can be seen."""
    text = "".join(traceback.format_exception(error))
    if os.environ.get("WATCHER_DEBUG"):
        sys.stderr.write(text)
        return None
    try:
        CRASH_FILE.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(CRASH_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        return None
    return CRASH_FILE
