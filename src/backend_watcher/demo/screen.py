"""What is shown: live figures on a terminal, plain lines elsewhere, nothing at all for `--json`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from backend_watcher.demo.figures import percentile
from backend_watcher.demo.measure import Delays
from backend_watcher.demo.proof import rupiah
from backend_watcher.demo.report import PhaseReport, Report

REFRESH_PER_SECOND = 4

ROWS = (
    "a call to a seller takes",
    "orders",
    "an order, p50",
    "an order, p95",
    "an order, p99",
    "commit → cache, p50 / p99",
    "commit → handler, p50 / p99",
    "commit → revenue stored, p50 / p99",
    "sellers told / crossings",
    "revenue",
    "changes delivered",
    "watcher killed (SIGKILL)",
    "lost",
    "wrong",
)


WAITS = tuple(row for row in ROWS if row.startswith("commit →"))


class Screen:
    """Both phases side by side, filled in as they go. `console` None shows nothing."""

    def __init__(self, console: Console | None, latency_ms: str) -> None:
        self._latency_ms = latency_ms
        self._console = console
        self._cells: dict[tuple[str, str], str] = {}
        self._status = ""
        self._begun = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console is not None and self._console.is_terminal:
            self._live = Live(
                console=self._console, get_renderable=self._picture, refresh_per_second=REFRESH_PER_SECOND
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def say(self, status: str) -> None:
        """Say what is being done."""
        self._status = status
        if self._console is not None and self._live is None:
            self._console.print(
                f"[{time.monotonic() - self._begun:5.1f} s] {status}", markup=False, highlight=False, soft_wrap=True
            )

    def progress(self, mode: str, line: Mapping[str, Any], seconds: float) -> None:
        """Show what the customers have seen so far."""
        self._set("a call to a seller takes", mode, f"{self._latency_ms.replace('-', ' – ')} ms")
        self._set("orders", mode, f"{line['orders']:,}")
        for percent in (50, 95, 99):
            self._set(f"an order, p{percent}", mode, _ms(line[f"p{percent}_ms"]))
        left = max(0.0, seconds - line["seconds"])
        self._status = f"{mode}: {left:.0f} s of orders to come"

    def killed(self, count: int) -> None:
        """Show that the watcher was killed."""
        self._set("watcher killed (SIGKILL)", "watched", f"{count} ×, started again")

    def phase(self, mode: str, report: PhaseReport) -> None:
        """Show a phase that is over."""
        self._set("orders", mode, f"{report.orders:,}")
        for percent in (50, 95, 99):
            self._set(f"an order, p{percent}", mode, _ms(percentile(report.latencies_ms, percent)))
        proof = report.proof
        self._set("sellers told / crossings", mode, f"{proof.notified} / {proof.crossings}")
        self._set("revenue", mode, rupiah(proof.revenue_rupiah))
        self._set("lost", mode, str(len(proof.lost)))
        self._set("wrong", mode, str(len(proof.wrong)))
        if mode == "inline":
            for row in WAITS:
                self._set(row, mode, "inside the request")

    def finish(self, report: Report) -> None:
        """Show the whole table and the verdict, and stop being live."""
        for row, found in zip(WAITS, (report.cache, report.handler, report.revenue), strict=True):
            self._set(row, "watched", _pair(found))
        self._set("changes delivered", "watched", f"{report.watched.proof.changes:,}")
        if report.outage_ms is not None:
            self._set(
                "watcher killed (SIGKILL)", "watched", f"{report.kills} ×, caught up after {report.outage_ms:,.0f} ms"
            )
        self._status = ""
        if self._live is None and self._console is not None:
            self._console.print(self._table())
        self.close()
        if self._console is not None:
            style = "bold green" if report.ok else "bold red"
            self._console.print(Text(report.verdict, style=style), soft_wrap=True)

    def close(self) -> None:
        """Stop being live; what is shown stays."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _set(self, row: str, mode: str, text: str) -> None:
        self._cells[row, mode] = text

    def _picture(self) -> Group:
        if not self._status:
            return Group(self._table())
        seconds = time.monotonic() - self._begun
        return Group(self._table(), Text(f"{seconds:4.0f} s  {self._status}", style="dim"))

    def _table(self) -> Table:
        table = Table(title="the same orders, twice", title_justify="left")
        table.add_column("")
        table.add_column("inline", justify="right")
        table.add_column("watched", justify="right")
        for row in ROWS:
            bold = "bold" if row.endswith("p99") and row.startswith("an order") else ""
            table.add_row(row, self._cells.get((row, "inline"), ""), self._cells.get((row, "watched"), ""), style=bold)
        return table


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} ms"


def _pair(found: Delays) -> str:
    p50, p99 = percentile(found.values_ms, 50), percentile(found.values_ms, 99)
    return "" if p50 is None or p99 is None else f"{p50:.1f} / {p99:.1f} ms"
