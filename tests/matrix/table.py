"""What the runs came to: one cell for each version and suite, as a table and as JSON. Pure."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One suite on one version. `skipped_for` counts the skips by their reasons."""

    passed: int = 0
    failed: tuple[str, ...] = ()
    skipped_for: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def skipped(self) -> int:
        """How many tests were skipped."""
        return sum(self.skipped_for.values())


Results = Mapping[str, Mapping[str, Cell]]
"""Cells by version and suite."""


def read(report: str | None, code: int, seconds: float) -> Cell:
    """Read a JUnit report. A run that failed without a failed test, or without a report, is a failure of its own."""
    passed, failed, skipped = 0, [], Counter[str]()
    for case in ElementTree.fromstring(report).iter("testcase") if report else ():
        name = f"{case.get('classname')}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(name)
        elif (skip := case.find("skipped")) is not None:
            skipped[str(skip.get("message"))] += 1
        else:
            passed += 1
    if code != 0 and not failed:
        failed.append(f"pytest ended with code {code}")
    elif not passed and not failed and not skipped:
        failed.append("there was no test")
    return Cell(passed, tuple(dict.fromkeys(failed)), dict(skipped), seconds)


def is_clean(results: Results) -> bool:
    """Say whether nothing failed."""
    return not any(cell.failed for cells in results.values() for cell in cells.values())


def lines(results: Results) -> list[str]:
    """Write the table, and below it what failed."""
    suites = list(dict.fromkeys(suite for cells in results.values() for suite in cells))
    heads = ["PostgreSQL", *suites, "seconds"]
    rows = [
        [
            version,
            *(_short(cells.get(suite)) for suite in suites),
            f"{sum(cell.seconds for cell in cells.values()):.0f}",
        ]
        for version, cells in results.items()
    ]
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    table = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in [heads, *rows]]
    failed = [
        f"failed on {version}: {name}"
        for version, cells in results.items()
        for cell in cells.values()
        for name in cell.failed
    ]
    return [*(line.rstrip() for line in table), "passed/failed/skipped, seconds of each suite", *failed]


def as_json(results: Results) -> dict[str, Any]:
    """Return the same for a program."""
    suites = {
        version: {suite: asdict(cell) | {"skipped": cell.skipped} for suite, cell in cells.items()}
        for version, cells in results.items()
    }
    return {"clean": is_clean(results), "versions": suites}


def _short(cell: Cell | None) -> str:
    return "-" if cell is None else f"{cell.passed}/{len(cell.failed)}/{cell.skipped} {cell.seconds:.0f} s"
