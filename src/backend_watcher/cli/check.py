"""`watcher check`: what stands in the way of a run, each fault with what mends it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from backend_watcher.cli import settings
from backend_watcher.cli.failure import failure_of, print_fault, print_remedy
from backend_watcher.cli.screen import print_json, print_lines, print_table
from backend_watcher.errors import ExitCode, WatcherError

if TYPE_CHECKING:
    from backend_watcher.service.control import Report


def check(target: settings.Target = None, config: settings.ConfigPath = None, json: settings.Json = False) -> int:
    """Look at the source, the tables and the sinks, and change nothing."""
    from backend_watcher.service import control

    found, watcher = settings.read(target, config)
    report = asyncio.run(control.check(found, watcher))
    error: WatcherError | None = None
    try:
        control.raise_if_faulty(report)
    except WatcherError as raised:
        error = raised
    if json:
        print_json(_object(report, error))
    else:
        _show(report)
    return error.exit_code if error is not None else ExitCode.CLEAN


def _object(report: Report, error: WatcherError | None) -> dict[str, Any]:
    findings = [
        {"level": f.level.value, "code": f.code, "subject": f.subject, "message": f.message, "remedy": f.remedy}
        for f in report.findings
    ]
    shown: dict[str, Any] = {"ok": error is None, "findings": findings}
    return shown | (failure_of(error).as_json() if error is not None else {"exit_code": ExitCode.CLEAN})


def _show(report: Report) -> None:
    fine = [finding for finding in report.findings if not finding.remedy]
    if fine:
        print_table(("what", "found"), [(finding.subject, finding.message) for finding in fine])
    # Beside the table, where a statement stays on one line and can be copied.
    for warning in report.warnings:
        print_lines([f"warning: {warning.message}", f"remedy: {warning.remedy}"])
    for fault in report.faults:
        print_fault(fault.message)
        print_remedy(fault.remedy)
