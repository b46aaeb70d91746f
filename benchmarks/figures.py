"""What every benchmark begins and ends with: which build it measures, and its figures for a program."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backend_watcher import __version__
from backend_watcher.version import is_compiled

Figure = dict[str, Any]
"""`name`, `value`, `unit`, `reference` (what it is beside) and `target`, where there is one."""


def arguments(about: str | None) -> ArgumentParser:
    """Return a parser that knows `--json`."""
    parser = ArgumentParser(description=about)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser


def say_build() -> None:
    """Print what is measured, and on how many CPUs."""
    print(f"backend-watcher {__version__} ({'compiled' if is_compiled() else 'pure Python'}), {os.cpu_count()} CPUs")


def write(figures: Sequence[Figure], path: Path | None) -> None:
    """Write the figures where `--json` says."""
    if path:
        path.write_text(json.dumps({"figures": list(figures)}, indent=2) + "\n")
