"""
Every suite that asks a server, on every version: `python -m matrix.run`, in the folder of the tests.

The tests start the server that WATCHER_POSTGRES_DIR names; here it names one version after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from backend_watcher.embedded.install import POSTGRES_SETTING

from .servers import VERSIONS, NoServers, fetch
from .table import Cell, as_json, is_clean, lines, read

ROOT = Path(__file__).parents[2]
SUITE_SECONDS_MAX = 1800.0
NO_ANSWER = 124

# A suite of which no file exists is left out.
SUITES = {
    "capture": ("capture",),
    "postgres": ("postgres",),
    "oracle": ("oracle",),
    "recorded": ("fuzz/test_recorded.py",),
    "service": ("service/test_control.py", "service/test_supervise.py"),
    "conformance": ("conformance",),
    "replica": ("sinks/test_postgres_replica*.py",),
}


def files_of(suite: str) -> list[str]:
    """Return what a suite runs, as pytest takes it."""
    tests = ROOT / "tests"
    return [str(path.relative_to(ROOT)) for pattern in SUITES[suite] for path in sorted(tests.glob(pattern))]


def run(install: Path, files: list[str]) -> Cell:
    """Run some files on one server."""
    begun = time.monotonic()
    with TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *files]
        environment = os.environ | {POSTGRES_SETTING: str(install)}
        try:
            ran = subprocess.run(command, cwd=ROOT, env=environment, timeout=SUITE_SECONDS_MAX, check=False)
            code = ran.returncode
        except subprocess.TimeoutExpired:
            code = NO_ANSWER
        text = report.read_text() if report.exists() else None
    return read(text, code, round(time.monotonic() - begun, 1))


def run_all(installs: dict[int, Path], suites: list[str]) -> Iterator[tuple[str, str, Cell]]:
    """Run everything, and tell each cell when it is there."""
    for major, install in installs.items():
        for suite in suites:
            if files := files_of(suite):
                version = VERSIONS[major].rpartition(".0-")[0]
                print(f"== PostgreSQL {version}: {suite}", flush=True)
                yield version, suite, run(install, files)


def main() -> int:
    """Fetch, run, print; 1 where a test failed, 2 where there are no servers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=Path, required=True, help="the folder they are put in")
    parser.add_argument("--versions", type=int, nargs="*", choices=list(VERSIONS), help="only these")
    parser.add_argument("--suites", nargs="*", choices=list(SUITES), help="only these")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    try:
        installs = fetch(asked.servers, asked.versions or VERSIONS)
    except NoServers as missing:
        print(missing, file=sys.stderr)
        return 2
    results: dict[str, dict[str, Cell]] = {}
    for version, suite, cell in run_all(installs, asked.suites or list(SUITES)):
        results.setdefault(version, {})[suite] = cell
    print("\n".join(["", *lines(results)]))
    if asked.json:
        asked.json.write_text(json.dumps(as_json(results), indent=2) + "\n")
    return 0 if is_clean(results) else 1


if __name__ == "__main__":
    sys.exit(main())
