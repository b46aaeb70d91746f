"""`watcher tail`: changes as they are captured, read from the journal's file and never from the source."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from backend_watcher.cli import settings
from backend_watcher.cli.screen import width
from backend_watcher.errors import ConfigError

if TYPE_CHECKING:
    from backend_watcher.events.change import Change

LAST = 10


def tail(
    tables: Annotated[list[str] | None, typer.Argument(metavar="[TABLE]...", help="Only these tables.")] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Go on with what comes.")] = True,
    start: Annotated[
        str | None, typer.Option("--from", metavar="POSITION", help="Begin after a position; `start` is the oldest.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("-n", min=0, help=f"Begin with the last N changes ({LAST}); with --from, end after N.")
    ] = None,
    app: Annotated[str | None, typer.Option("--app", help="The program, if the settings name none.")] = None,
    config: settings.ConfigPath = None,
    json: settings.Json = False,
) -> int:
    """Show changes live."""
    from backend_watcher.events.envelope import change_to_json
    from backend_watcher.events.position import START, Position
    from backend_watcher.service import control

    found, _ = settings.read(app, config, complete=False)
    names = control.table_names(tables or ())
    try:
        after = START if start == "start" else Position.parse(start) if start is not None else None
    except ValueError as error:
        raise ConfigError([f"--from: {error}"], remedy="`watcher tail --json` shows positions.") from None
    with control.open_journal(found) as view:
        if after is None:
            after = control.before_last(view, names, LAST if count is None else count)
            changes: Iterator[Change] = control.tail(view, names, after=after, follow=follow)
        else:
            changes = islice(control.tail(view, names, after=after, follow=follow), count)
        out = sys.stdout.buffer
        try:
            for change in changes:
                out.write(change_to_json(change) + b"\n" if json else _line(change))
                if follow:
                    out.flush()
        except KeyboardInterrupt:
            return 0
        out.flush()
    return 0


def _line(change: Change) -> bytes:
    """Write a change for a person: when, what, which row, and what it is now."""
    import msgspec

    from backend_watcher.events.envelope import change_to_json

    # By way of JSON: it writes every type, and leaves no control character that a terminal would obey.
    whole = msgspec.json.decode(change_to_json(change))
    when = change.commit_time.astimezone().strftime("%H:%M:%S.%f")[:-3]
    words = [when, change.operation.value.ljust(8), change.table.full_name]
    if whole["key"]:
        words.append(_pairs(whole["key"]))
    if "key_before" in whole:
        words.append(f"(was {_pairs(whole['key_before'])})")
    rest = {name: value for name, value in (whole["new"] or {}).items() if name not in whole["key"]}
    words.append(_pairs(rest))
    line = " ".join(word for word in words if word)
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    room = width()
    return (line if len(line) <= room else line[: room - 1] + "…").encode(errors="replace") + b"\n"


def _pairs(values: dict[str, object]) -> str:
    import msgspec

    return " ".join(f"{name}={msgspec.json.encode(value).decode()}" for name, value in values.items())
