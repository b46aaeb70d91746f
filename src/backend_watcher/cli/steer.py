"""`watcher pause`, `resume`, `replay`, `forget`, `audit`: steering a subscription, whether or not a watcher runs."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from backend_watcher.cli import settings
from backend_watcher.cli.screen import print_json, print_lines, print_table
from backend_watcher.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from backend_watcher.service.steering import Request

Name = Annotated[str, typer.Argument(metavar="SUBSCRIPTION", help="Its name, as `watcher status` shows it.")]
App = Annotated[str | None, typer.Option("--app", help="The program, if the settings name none.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is written into the audit.")]
AUDIT_ENTRIES = 50


def do(app: str | None, config: Path | None, request: Request, *, json: bool) -> int:
    """Let one operation be done, and print what came of it."""
    from backend_watcher.service.operate import operate

    found, watcher = settings.read_for_journal(app, config)
    said = asyncio.run(operate(found, watcher, request))
    if json:
        about = {"subscription": request.subscription} if request.subscription else {}
        print_json({**about, "operation": request.operation, "said": said, "exit_code": 0})
    else:
        print_lines([f"{request.subscription}: {said}" if request.subscription else said])
    return 0


def pause(
    name: Name, reason: Reason = "", app: App = None, config: settings.ConfigPath = None, json: settings.Json = False
) -> int:
    """Stop delivering one subscription until `watcher resume`; the others go on, and nothing is lost."""
    from backend_watcher.service.operate import who
    from backend_watcher.service.steering import Request

    return do(app, config, Request(operation="pause", subscription=name, by=who(), reason=reason), json=json)


def resume(name: Name, app: App = None, config: settings.ConfigPath = None, json: settings.Json = False) -> int:
    """Let a paused subscription go on where it stopped."""
    from backend_watcher.service.operate import who
    from backend_watcher.service.steering import Request

    return do(app, config, Request(operation="resume", subscription=name, by=who()), json=json)


def replay(
    name: Name,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Captured since: 2026-01-31T09:00, or 15m, 2h, 3d ago."),
    ] = None,
    begin: Annotated[
        str | None, typer.Option("--from", metavar="POSITION", help="From a position on, with the change there.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="POSITION", help="Up to a position; left out, up to the cursor.")
    ] = None,
    table: Annotated[str | None, typer.Option("--table", help="Only changes of this table.")] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="Only the row with this key; several columns as a,b.")
    ] = None,
    app: App = None,
    config: settings.ConfigPath = None,
    json: settings.Json = False,
) -> int:
    """Deliver past changes again, marked as replayed; what is new waits until they are through."""
    from backend_watcher.events.position import Position
    from backend_watcher.service import control
    from backend_watcher.service.operate import position_since, positions, who
    from backend_watcher.service.steering import Request

    if (since is None) == (begin is None):
        raise ConfigError(["give one of --since and --from"], remedy="For all there is: --from start.")
    found, _ = settings.read_for_journal(app, config)
    first, last = positions([("--from", None if begin == "start" else begin), ("--to", to)])
    after = position_since(found, since) if since is not None else None
    if first is not None:
        after = Position(first.commit_lsn, first.ordinal - 1)
    request = Request(
        operation="replay",
        subscription=name,
        by=who(),
        after=None if after is None else (after.commit_lsn, after.ordinal),
        to=None if last is None else (last.commit_lsn, last.ordinal),
        table=next(iter(control.table_names([table]))) if table is not None else None,
        key=key,
    )
    return do(app, config, request, json=json)


def forget(
    name: Name,
    yes: Annotated[
        str | None, typer.Option("--yes", metavar="NAME", help="The name once more: it cannot be undone.")
    ] = None,
    reason: Reason = "",
    app: App = None,
    config: settings.ConfigPath = None,
    json: settings.Json = False,
) -> int:
    """Forget the cursor and the held changes of a subscription that is gone for good."""
    from backend_watcher.service.operate import who
    from backend_watcher.service.steering import Request

    if yes != name:
        raise ConfigError(
            [f"{name!r} would lose its cursor and what it holds"], remedy=f"If that is meant: `--yes {name}`."
        )
    return do(app, config, Request(operation="forget", subscription=name, by=who(), reason=reason), json=json)


def skip(
    lsn: Annotated[
        str, typer.Argument(metavar="LSN", help="Where the transaction commits: `watcher status` shows it.")
    ],
    reason: Reason = "",
    app: App = None,
    config: settings.ConfigPath = None,
    json: settings.Json = False,
) -> int:
    """Give up the one transaction that PostgreSQL cannot send; its changes must be had in another way."""
    from backend_watcher.events.position import parse_lsn
    from backend_watcher.service.operate import who
    from backend_watcher.service.steering import SKIP, Request

    try:
        to = (parse_lsn(lsn), 0)
    except ValueError as error:
        raise ConfigError([f"LSN: {error}"], remedy="`watcher status` shows it.") from None
    return do(app, config, Request(operation=SKIP, subscription="", by=who(), reason=reason, to=to), json=json)


def audit(
    count: Annotated[int, typer.Option("-n", min=1, help="So many of the newest entries.")] = AUDIT_ENTRIES,
    app: App = None,
    config: settings.ConfigPath = None,
    json: settings.Json = False,
) -> int:
    """Show what people did to subscriptions, and why."""
    from dataclasses import asdict

    from backend_watcher.service.operate import audits

    found, _ = settings.read_for_journal(app, config)
    entries = audits(found, count)
    if json:
        print_json({"audit": [asdict(entry) for entry in entries], "exit_code": 0})
        return 0
    rows = [
        [datetime.fromtimestamp(one.at).isoformat(" ", "seconds"), one.actor, one.action, one.subject, one.detail]  # noqa: DTZ006 for people, in their zone
        for one in entries
    ]
    print_table(["when", "who", "did", "to", "why, and what came of it"], rows)
    return 0
