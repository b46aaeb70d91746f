"""`watcher parked`: the keys that failed, what waits behind them, and what is to become of them."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from backend_watcher.cli import settings
from backend_watcher.cli.screen import print_json, print_lines, print_pairs, print_table, span
from backend_watcher.cli.steer import App, Name, do
from backend_watcher.errors import ConfigError

if TYPE_CHECKING:
    from backend_watcher.contracts import HeldKey

app = typer.Typer(
    help="Keys that failed: list, show, redrive, discard.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
Number = Annotated[int, typer.Argument(min=0, help="The key's number, as `watcher parked list` shows it.")]


@app.command("list")
def show_all(
    name: Annotated[str | None, typer.Argument(metavar="[SUBSCRIPTION]", help="Only this one.")] = None,
    program: App = None,
    config: settings.ConfigPath = None,
    json: settings.Json = False,
) -> int:
    """List the keys that failed: parked, or still being retried."""
    from backend_watcher.service.operate import held_keys, key_values

    found, _ = settings.read_for_journal(program, config)
    held = held_keys(found, name)
    if json:
        keys = [{"subscription": of, **key_values(key)} for of, keys in held.items() for key in keys]
        print_json({"held": keys, "exit_code": 0})
        return 0
    rows = [_row(of, key) for of, keys in held.items() for key in keys]
    if not rows:
        print_lines(["nothing is parked"])
        return 0
    print_table(
        ["subscription", "number", "state", "table", "key", "changes", "attempts", "failing for", "error"], rows
    )
    return 0


def _row(subscription: str, key: HeldKey) -> list[str]:
    state = "parked" if key.parked else "retrying"
    failing = span(max(time.time() - key.first_at, 0.0))
    plain = [subscription, str(key.number), state, key.table, key.key, str(key.changes), str(key.attempts), failing]
    return [*plain, key.error]


@app.command()
def show(
    name: Name, number: Number, program: App = None, config: settings.ConfigPath = None, json: settings.Json = False
) -> int:
    """Show one key: why it failed, and the changes that wait, the failing one first."""
    import msgspec

    from backend_watcher.events.envelope import change_to_json
    from backend_watcher.service.operate import held_key, key_values

    found, _ = settings.read_for_journal(program, config)
    key, changes = held_key(found, name, number)
    if json:
        waiting = [msgspec.json.decode(change_to_json(change)) for change in changes]
        print_json({"subscription": name, **key_values(key), "waiting": waiting, "exit_code": 0})
        return 0
    state = "parked" if key.parked else f"retrying, again in {span(max((key.due_at or 0.0) - time.time(), 0.0))}"
    print_pairs(
        [
            ("subscription", name),
            ("table", key.table),
            ("key", key.key),
            ("state", state),
            ("attempts", f"{key.attempts}, from {_moment(key.first_at)} to {_moment(key.last_at)}"),
            ("error", key.error),
            ("remedy", key.remedy),
            ("changes", f"{key.changes}, the failing one first"),
        ]
    )
    print_lines([change_to_json(change).decode() for change in changes])
    return 0


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at).isoformat(" ", "seconds")  # noqa: DTZ006 for people, in their zone


@app.command()
def redrive(
    name: Name,
    number: Annotated[int | None, typer.Argument(min=0, help="The key's number.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every parked key of the subscription.")] = False,
    program: App = None,
    config: settings.ConfigPath = None,
    json: settings.Json = False,
) -> int:
    """Try a parked key again, and then what waits behind it, in order."""
    from backend_watcher.service.operate import who
    from backend_watcher.service.steering import Request

    if (number is None) != everything:
        raise ConfigError(["give the number of a key, or --all"], remedy="`watcher parked list` shows the numbers.")
    request = Request(operation="redrive", subscription=name, by=who(), number=number)
    return do(program, config, request, json=json)


@app.command()
def discard(
    name: Name,
    number: Number,
    reason: Annotated[
        str, typer.Option("--reason", help="Why it need not be delivered; it is written into the audit.")
    ],
    everything: Annotated[bool, typer.Option("--all", help="Also what waits behind it.")] = False,
    program: App = None,
    config: settings.ConfigPath = None,
    json: settings.Json = False,
) -> int:
    """Give up the change that a key failed on; what waits behind it is tried next. It cannot be undone."""
    from backend_watcher.service.operate import who
    from backend_watcher.service.steering import Request

    request = Request(
        operation="discard", subscription=name, by=who(), reason=reason, number=number, everything=everything
    )
    return do(program, config, request, json=json)
