"""
What a scenario came to. A test names its scenarios with a mark and says its figures to the fixture `result`:

    @pytest.mark.scenario("2", "kill -9 at every probe")
    def test_…(result: Part) -> None:
        result.add(runs=1, lost=0, recovery_seconds_max=1.2)

The parts of one scenario are merged: figures that end in `_max` by the largest, others by their sum, and it has
passed when every test of it has. What was skipped is said, and has not passed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ZERO = ("lost", "phantoms", "order_violations")
"""With more than none of these no scenario has passed, whatever its tests say."""
COLUMNS = ("runs", "lost", "phantoms", "duplicates", "order_violations", "recovery_seconds_max")
NUMBERS_SHOWN = 6


def merge(into: dict[str, float], name: str, value: float) -> None:
    """Put one figure to those that are there."""
    into[name] = max(into.get(name, 0), value) if name.endswith("_max") else into.get(name, 0) + value


@dataclass
class Part:
    """What one test has to say of its scenarios."""

    figures: dict[str, float] = field(default_factory=dict)

    def add(self, **figures: float) -> None:
        """Say figures; those said before are added to."""
        for name, value in figures.items():
            merge(self.figures, name, value)


@dataclass
class Scenario:
    """All parts of one scenario."""

    id: str
    name: str
    figures: dict[str, float] = field(default_factory=lambda: {"runs": 0, "lost": 0, "duplicates": 0})
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def has_passed(self) -> bool:
        """Whether everything of it was run and was as it has to be."""
        return self.passed > 0 and not self.failed and not self.skipped and not any(self.figures.get(z) for z in ZERO)

    def as_json(self) -> dict[str, object]:
        """Return it as it is written to FAULTS_JSON."""
        figures = {name: _plain(value) for name, value in self.figures.items()}
        for name in COLUMNS:
            figures.setdefault(name, 0)
        told: dict[str, object] = {"id": self.id, "name": self.name, **figures, "pass": self.has_passed}
        if self.failed:
            told["failed"] = self.failed
        if self.skipped:
            told["skipped"] = self.skipped
        return told


class Results:
    """Every scenario of a run."""

    def __init__(self) -> None:
        self._scenarios: dict[str, Scenario] = {}

    def of(self, number: str, name: str) -> Scenario:
        """Return a scenario; the first name it is given stays."""
        return self._scenarios.setdefault(number, Scenario(number, name))

    def parts(self) -> list[dict[str, object]]:
        """Return all that has been said, for `add`: from another process, or from a run before this one."""
        return [asdict(scenario) for scenario in self._scenarios.values()]

    def add(self, parts: list[dict[str, Any]]) -> None:
        """Put the results of another process, or of another run, to these."""
        for part in parts:
            scenario = self.of(part["id"], part["name"])
            for name, value in part["figures"].items():
                merge(scenario.figures, name, value)
            scenario.passed += part["passed"]
            scenario.failed += part["failed"]
            scenario.skipped += part["skipped"]

    def as_json(self) -> list[dict[str, object]]:
        """Return all, in the order of their numbers."""
        found = sorted(
            self._scenarios.values(), key=lambda one: (int("0" + "".join(filter(str.isdigit, one.id))), one.id)
        )
        return [scenario.as_json() for scenario in found]

    def write(self, path: Path) -> None:
        """Write them for a program."""
        path.write_text(json.dumps({"scenarios": self.as_json()}, indent=1) + "\n")

    def lines(self) -> list[str]:
        """Return them for people."""
        rows = [["id", "scenario", *(name.replace("_seconds_max", " s") for name in COLUMNS), "pass", ""]]
        for one in self.as_json():
            more = {k: v for k, v in one.items() if k not in {"id", "name", "pass", "failed", "skipped", *COLUMNS}}
            said = "skipped: " + "; ".join(one["skipped"]) if "skipped" in one else ""  # type: ignore[arg-type]
            more_said = ", ".join(f"{name} {value}" for name, value in list(more.items())[:NUMBERS_SHOWN])
            verdict = "yes" if one["pass"] else "NO" if "failed" in one or not said else "-"
            cells = [str(one["id"]), str(one["name"])[:44], *(str(one[name]) for name in COLUMNS), verdict]
            rows.append([*cells, "  ".join(filter(None, (said, more_said)))])
        widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]) - 1)]
        return ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows]


def _plain(value: float) -> float:
    return value if isinstance(value, int) else round(value, 3)
