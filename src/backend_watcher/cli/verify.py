"""`watcher verify`: proves that sinks hold what the source says, or shows where they do not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backend_watcher.cli import settings
from backend_watcher.cli.failure import print_fault, print_remedy
from backend_watcher.cli.screen import print_json, print_lines, print_table, span
from backend_watcher.errors import ConfigError

if TYPE_CHECKING:
    from backend_watcher.service.verifying import Proof

SHOWN = 20


def verify(
    subscription: Annotated[str | None, typer.Argument(help="Left out, all that can be verified.")] = None,
    table: Annotated[str | None, typer.Argument(help="Left out, all tables of the subscription.")] = None,
    where: Annotated[
        str | None, typer.Option("--where", metavar="SQL", help='Only rows that this holds for: "shop = 7".')
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the report to a file too.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", metavar="ROWS", help="At most so many rows a second.")] = None,
    app: Annotated[str | None, typer.Option("--app", help="The program, if the settings name none.")] = None,
    config: settings.ConfigPath = None,
    json: settings.Json = False,
) -> int:
    """
    Compare what a cache or a replica holds with the source, and look again before anything is called drift.

    Exit code 0: equal; 5: drift was found; 75: not known, or not of all. Ctrl-C ends it with what is known so far.
    """
    from backend_watcher.service.verifying import Asked, verify

    if html is not None and (html.is_dir() or not html.parent.is_dir()):
        # Said now, and not when all has been read.
        raise ConfigError([f"--html: {html} cannot be written: there is no such folder, or it is one"])
    found, watcher = settings.read(app, config)
    asked = Asked(subscription, table, where, rate)
    proof = asyncio.run(verify(found, watcher, asked))
    if html is not None:
        from backend_watcher.service.verifying import page_of

        html.write_text(page_of(proof), encoding="utf-8")
    if json:
        print_json(proof.as_plain())
    else:
        show(proof)
    return proof.exit_code


def show(proof: Proof) -> None:
    """Print what was found."""
    plain = proof.as_plain()
    columns = (
        "subscription",
        "table",
        "verdict",
        "rows",
        "missing",
        "extra",
        "different",
        "unsettled",
        "digest",
        "took",
    )
    rows = [
        (
            one["subscription"],
            one["table"],
            one["verdict"],
            f"{one['rows']:,}",
            *(f"{one[kind]:,}" for kind in ("missing", "extra", "different")),
            f"{sum(one['unsettled'].values()):,}",
            one["source_digest"] if one["source_digest"] == one["sink_digest"] else "differs",
            span(one["seconds"]),
        )
        for one in plain["tables"]
    ]
    if rows:
        print_table(columns, rows)
    for one in plain["tables"]:
        print_lines(_lines(one))
    print_lines([f"{name}: not verified: {reason}" for name, reason in plain["left_out"].items()])
    if proof.interrupted:
        print_lines(["interrupted: this is what was found until then"])
    if proof.error is not None:
        print_fault(proof.error.message)
        print_remedy(proof.error.remedy)


def _lines(one: dict[str, object]) -> list[str]:
    """Say more of one table: the first differences with both versions, and what was not looked at."""
    head = f"{one['subscription']} {one['table']}"
    differences = one["differences"]
    unsettled, notes = one["unsettled"], one["notes"]
    assert isinstance(differences, list)
    assert isinstance(unsettled, dict)
    assert isinstance(notes, list)
    lines = [
        f"{head}: {each['kind']} {each['entry']!r}: source {each['source']}, sink {each['sink']}"
        for each in differences[:SHOWN]
    ]
    if len(differences) > SHOWN:
        lines.append(f"{head}: and {len(differences) - SHOWN:,} more; --json has all of them")
    lines += [f"{head}: {count:,} unsettled: {reason}" for reason, count in unsettled.items()]
    if one["by_digests"]:
        lines.append(f"{head}: compared by digests of {one['ranges']:,} ranges; {one['read_again']:,} rows read again")
    if one["expired"]:
        lines.append(f"{head}: {one['expired']:,} entries have expired")
    if one["refused"]:
        lines.append(f"{head}: {one['refused']:,} rows cannot be delivered, so nothing is expected of them")
    if one["extras_unknown"]:
        lines.append(f"{head}: extra entries were not looked for: {one['extras_unknown']}")
    return lines + [f"{head}: {note}" for note in notes]
