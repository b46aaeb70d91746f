"""`watcher repair`: puts right what `watcher verify` finds, and proves that it is."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backend_watcher.cli import settings
from backend_watcher.cli.failure import print_fault, print_remedy
from backend_watcher.cli.screen import print_json, print_lines
from backend_watcher.cli.steer import App, Reason
from backend_watcher.cli.verify import show
from backend_watcher.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend_watcher.reconcile.compare import Difference
    from backend_watcher.service.config import Config
    from backend_watcher.service.repairing import Plan, Repaired
    from backend_watcher.service.verifying import Proof
    from backend_watcher.service.watcher import Watcher

SHOWN = 10


def repair(
    subscription: Annotated[str | None, typer.Argument(help="Left out, all that can be verified.")] = None,
    table: Annotated[str | None, typer.Argument(help="Left out, all tables of the subscription.")] = None,
    where: Annotated[
        str | None, typer.Option("--where", metavar="SQL", help='Only rows that this holds for: "shop = 7".')
    ] = None,
    proof: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="What `watcher verify --json` found, instead.")
    ] = None,
    rate: Annotated[float | None, typer.Option("--rate", metavar="ROWS", help="Verify so many rows a second.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    reason: Reason = "",
    app: App = None,
    config: settings.ConfigPath = None,
    json: settings.Json = False,
) -> int:
    """
    Verify, show what would be done about what differs, do it, and verify that again.

    Rows that differ are delivered again, at their place among the changes that go on; of entries without a row a
    delete is. Exit code 0: all is equal; 5: something differs; 75: not known. In a pipe nothing is done without --yes.
    """
    found, watcher = settings.read(app, config)
    done = asyncio.run(_look(found, watcher, subscription, table, where, proof, rate, show_it=not json))
    # Who has ended the verifying wants nothing done.
    can = any(not one.is_empty for one in done.plans) and (proof is not None or not done.before.interrupted)
    if can and (yes or (not json and _agreed())):
        done = asyncio.run(_do(found, watcher, done, reason, show_it=not json))
    elif can and not json:
        print_lines(["nothing was changed; with --yes it is done"])
    if json:
        print_json(done.as_plain())
    elif done.after is not None:
        _show_after(done.after, done)
    return done.exit_code


async def _look(
    config: Config,
    watcher: Watcher | None,
    subscription: str | None,
    table: str | None,
    where: str | None,
    path: Path | None,
    rate: float | None,
    *,
    show_it: bool,
) -> Repaired:
    """Find out what differs, and what is to be done about it."""
    from backend_watcher.service.repairing import Repaired, read_proof, what_to_do
    from backend_watcher.service.verifying import Asked, verify

    if path is not None and (table, where, rate) != (None, None, None):
        raise ConfigError(["--from: the file says which tables; leave the table, --where and --rate out"])
    if path is not None:
        before = read_proof(path, config.name)
        before.results = [one for one in before.results if subscription in (None, one.subscription)]
        if not before.results:
            raise ConfigError([f"--from: {path} says nothing of {subscription or 'any subscription'}"])
    else:
        before = await verify(config, watcher, Asked(subscription, table, where, rate))
    if show_it:
        show(before)
    plans = await what_to_do(config, watcher, before)
    if show_it:
        print_lines([line for one in plans for line in _lines(one)])
    return Repaired(before, plans)


async def _do(config: Config, watcher: Watcher | None, found: Repaired, reason: str, *, show_it: bool) -> Repaired:
    from backend_watcher.service.repairing import repair

    def tell(said: str) -> None:
        if show_it:
            print_lines([said])

    return await repair(config, watcher, found.before, found.plans, reason=reason, tell=tell)


def _agreed() -> bool:
    return _is_terminal() and typer.confirm("Do it?")


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _lines(one: Plan) -> list[str]:
    """Say what would be done about one table."""
    head = f"{one.subscription} {one.table}"
    lines = []
    removes = set(one.remove)
    if one.rewrite:
        count = f"{len(one.rewrite):,} {'row is' if len(one.rewrite) == 1 else 'rows are'}"
        entries = [of.difference for of in one.mended if not removes.issuperset(of.keys)]
        lines.append(f"{head}: {count} to be read again and delivered: {_some(entries)}")
    if one.remove:
        count = f"{len(one.remove):,} {'entry is' if len(one.remove) == 1 else 'entries are'}"
        entries = [of.difference for of in one.mended if removes.issuperset(of.keys)]
        lines.append(f"{head}: {count} to be removed: {_some(entries)}")
    reasons: dict[str, list[Difference]] = {}
    for of, why in one.cannot:
        reasons.setdefault(why, []).append(of)
    for why, those in reasons.items():
        lines.append(f"{head}: {len(those):,} cannot be repaired, {why}: {_some(those)}")
    return lines


def _some(entries: Sequence[Difference]) -> str:
    names = [repr(one.name.decode("utf-8", "replace")) for one in entries[:SHOWN]]
    return ", ".join([*names, *([f"and {len(entries) - SHOWN:,} more"] if len(entries) > SHOWN else [])])


def _show_after(after: Proof, done: Repaired) -> None:
    from backend_watcher.service.repairing import failures

    for line in failures(done):
        print_fault(line)
        print_remedy("Mend that, and run `watcher repair` again.")
    print_lines(["", "afterwards:"])
    show(after)
