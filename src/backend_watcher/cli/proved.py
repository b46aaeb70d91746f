"""What `watcher status` shows of sinks that are read back: what was visible, what differs, when all was compared."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from math import floor
from typing import TYPE_CHECKING, Any

from backend_watcher.cli.screen import print_lines, print_table, span

if TYPE_CHECKING:
    from backend_watcher.service.control import SubscriptionStatus

DRIFT_SHOWN = 20


def show(subscriptions: Sequence[SubscriptionStatus]) -> None:
    """Print it, where there is any."""
    rows = [(one.name, _visible(one.read_back), _compared(one.scans)) for one in subscriptions]
    rows = [row for row in rows if any(row[1:])]
    if rows:
        print_table(("subscription", "visible in the sink", "all rows compared"), rows)
    drift = [(one.name, entry) for one in subscriptions for entry in one.drift]
    if drift:
        columns = ("DRIFT in", "table", "entry", "how", "for", "what to do")
        print_table(columns, [_drift(*shown) for shown in drift[:DRIFT_SHOWN]])
    if len(drift) > DRIFT_SHOWN:
        print_lines([f"and {len(drift) - DRIFT_SHOWN} more entries that differ; --json shows all"])


def _visible(read_back: Mapping[str, Any] | None) -> str:
    if read_back is None:
        return ""
    known = [one for one in read_back["within"] if one["share"] is not None]
    shares = ", ".join(f"{_percent(one['share'])} within {one['seconds']:g} s" for one in known)
    looked = max((one["visible"] + one["missed"] for one in known), default=0)
    return f"{shares} (of {looked} in {span(read_back['window_seconds'])})" if known else ""


def _percent(share: float) -> str:
    # Rounded down: what is not all is not said to be.
    return f"{floor(share * 10_000) / 100:g} %"


def _compared(scans: Mapping[str, Any] | None) -> str:
    if scans is None:
        return ""
    last, now = scans["last"], scans["now"]
    told = []
    if last is not None:
        told.append(f"{last['verdict']}, {_ago(last['ended_at'])} ago{_counts(last)}")
    if now is not None:
        why = f", waiting: {now['error']}" if now["error"] else ""
        told.append(f"under way for {_ago(now['begun_at'])}, {len(now['tables'])} tables done{_counts(now)}{why}")
    return "; ".join(told)


def _counts(scan: Mapping[str, Any]) -> str:
    every = scan["tables"].values()
    found = [(sum(one[kind] for one in every), kind) for kind in ("missing", "extra", "different")]
    words = ", ".join(f"{count} {kind}" for count, kind in found if count)
    return f" ({words})" if words else ""


def _drift(subscription: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
    shown = f"`watcher verify {subscription} {entry['table']}` shows both versions"
    return subscription, entry["table"], entry["entry"], entry["kind"], _ago(entry["since"]), shown


def _ago(at: float) -> str:
    return span(max(0.0, time.time() - at))
