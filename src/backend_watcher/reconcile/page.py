"""
A report as one HTML file: for people who have to show it to others. Pure.

It needs nothing from elsewhere, runs no script, and says so to the browser: what the report shows came from rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

DIFFERENCES_SHOWN = 1_000
"""Of each table; the JSON has all of them."""

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>%s</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #8886; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
td.value { font-family: ui-monospace, monospace; font-size: .85rem; overflow-wrap: anywhere; white-space: pre-wrap; }
.verdict { font-weight: 600; padding: .1rem .5rem; border-radius: .3rem; }
.equal { background: #1a7f3733; } .different { background: #cf222e44; } .unsettled, .partial { background: #bf870044; }
</style>
</head>
<body>
"""
_COLUMNS = (
    "rows",
    "entries",
    "ranges",
    "missing",
    "extra",
    "different",
    "expired",
    "refused",
    "looked_again",
    "read_again",
)


def page(proof: Mapping[str, Any], begun: str, ended: str) -> str:
    """Write a whole report, as `as_plain` gives it; the two moments are written as they are given."""
    title = f"{proof['watcher']}: {proof['verdict']}"
    parts = [_HEAD % escape(title), f"<h1>{escape(str(proof['watcher']))} {_verdict(proof['verdict'])}</h1>\n"]
    parts.append(f"<p>{escape(begun)} to {escape(ended)}</p>\n")
    if proof["interrupted"]:
        parts.append("<p>Interrupted: this is what was found until then.</p>\n")
    if proof["error"]:
        parts.append(f"<p>{escape(str(proof['error']))}</p>\n")
    parts += [_table(one) for one in proof["tables"]]
    parts += [
        f"<p>{escape(name)}: not verified: {escape(str(reason))}</p>\n" for name, reason in proof["left_out"].items()
    ]
    parts.append("</body>\n</html>\n")
    return "".join(parts)


def _table(one: Mapping[str, Any]) -> str:
    parts = [f"<h2>{escape(one['subscription'])} · {escape(one['table'])} {_verdict(one['verdict'])}</h2>\n<table>\n"]
    facts = [(name.replace("_", " "), f"{one[name]:,}") for name in _COLUMNS if one[name] or name in _COLUMNS[:6]]
    facts += [("source digest", one["source_digest"]), ("sink digest", one["sink_digest"])]
    facts += [("position", one["position"] or "–"), ("seconds", f"{one['seconds']:,.1f}")]
    facts += [("only rows where", one["where"])] if one["where"] else []
    facts += [("extra entries not looked for", one["extras_unknown"])] if one["extras_unknown"] else []
    facts += [("unsettled", f"{count:,}: {reason}") for reason, count in one["unsettled"].items()]
    facts += [("note", note) for note in one["notes"]]
    parts += [f"<tr><th>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>\n" for name, value in facts]
    parts.append("</table>\n")
    differences = one["differences"]
    if differences:
        parts.append(_differences(differences))
    return "".join(parts)


def _differences(differences: Sequence[Mapping[str, Any]]) -> str:
    parts = ["<table>\n<tr><th>entry</th><th></th><th>source</th><th>sink</th></tr>\n"]
    for one in differences[:DIFFERENCES_SHOWN]:
        cells = (one["entry"], one["kind"], _value(one["source"]), _value(one["sink"]))
        parts.append("<tr>" + "".join(f'<td class="value">{escape(str(cell))}</td>' for cell in cells) + "</tr>\n")
    parts.append("</table>\n")
    if len(differences) > DIFFERENCES_SHOWN:
        parts.append(f"<p>and {len(differences) - DIFFERENCES_SHOWN:,} more</p>\n")
    return "".join(parts)


def _value(value: Any) -> str:
    return "–" if value is None else json.dumps(value, ensure_ascii=False)


def _verdict(verdict: str) -> str:
    return f'<span class="verdict {escape(verdict)}">{escape(verdict)}</span>'
