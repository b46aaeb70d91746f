"""
Where PostgreSQL's regression SQL is, and the library its functions are in. None of it is a part of this project.

REGRESS_SOURCE names a folder `src/test/regress` of PostgreSQL's sources; else what `fetch` has put below a folder of
ours is taken. The sources have to be of the same major version as the server, and its headers are needed once.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SOURCE_SETTING = "REGRESS_SOURCE"
INSTALLS = Path("/usr/lib/postgresql")
FETCH_SECONDS_MAX = 600.0
BUILD_SECONDS_MAX = 120.0
SAID_LINES_MAX = 10
_NEEDED = ("parallel_schedule", "sql/test_setup.sql", "regress.c")
_BESIDE = ("refint.so", "autoinc.so")


class NoRegress(Exception):
    """The regression SQL, or what it takes to run it, is not here; the message says what to do."""


@dataclass(frozen=True)
class Regress:
    """Everything to run it: the sources, a server's install tree, and the folder of the built library."""

    source: Path
    install: Path
    library: Path

    @property
    def program(self) -> Path:
        """What runs the schedule: it comes with the server's package."""
        return program_of(self.install)


def program_of(install: Path) -> Path:
    """Return where a server's package puts `pg_regress`."""
    return install / "lib/pgxs/src/test/regress/pg_regress"


def find_install(root: Path = INSTALLS) -> Path:
    """Return the newest installed server that brings psql and pg_regress. Raises NoRegress."""
    found = [
        folder
        for folder in root.glob("*")
        if folder.name.isdigit() and (folder / "bin/psql").exists() and program_of(folder).exists()
    ]
    if not found:
        raise NoRegress(f"no PostgreSQL below {root} brings psql and pg_regress (on Debian: apt install postgresql)")
    return max(found, key=lambda folder: int(folder.name))


def find_source(folder: Path, major: str) -> Path:
    """Return the regression sources: REGRESS_SOURCE, else those that were fetched. Raises NoRegress."""
    given = os.environ.get(SOURCE_SETTING)
    places = [Path(given)] if given else sorted(folder.glob(f"postgresql-{major}.*/src/test/regress"))
    for place in places:
        if all((place / name).exists() for name in _NEEDED):
            return place.resolve()
    where = f"{SOURCE_SETTING}={given}" if given else str(folder)
    raise NoRegress(f"PostgreSQL's regression SQL is not in {where}: `make judge` fetches it where apt-get can")


def prepare(folder: Path) -> Regress:
    """Find everything, fetch what is missing, and build the library. Raises NoRegress."""
    install = find_install()
    try:
        source = find_source(folder, install.name)
    except NoRegress:
        if SOURCE_SETTING in os.environ:
            raise
        fetch(folder, install.name)
        source = find_source(folder, install.name)
    library = folder / f"library-{install.name}"
    if not (library / "regress.so").exists():
        _build(source, install, headers(folder, install.name), library)
    return Regress(source, install, library)


def headers(folder: Path, major: str) -> Path:
    """Return the folder of the server's headers: installed, or fetched. Raises NoRegress."""
    for root in (Path("/"), folder / "headers"):
        if (place := root / f"usr/include/postgresql/{major}/server").exists():
            return place
    fetch(folder, major)
    return folder / f"headers/usr/include/postgresql/{major}/server"


def fetch(folder: Path, major: str) -> None:
    """Fetch the sources and headers of the installed server from the distribution. Raises NoRegress."""
    for program in ("apt-get", "dpkg", "dpkg-query"):
        if shutil.which(program) is None:
            raise NoRegress(f"{program} is needed to fetch PostgreSQL's sources; or name them in {SOURCE_SETTING}")
    version = _run(["dpkg-query", "-W", "-f", "${Version}", f"postgresql-{major}"], folder).strip()
    lists, parts = folder / "apt/lists", folder / "apt/sources.list.d"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    parts.mkdir(parents=True, exist_ok=True)
    # The system's own list of packages stays as it is: sources are asked for in a list of ours.
    for path in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))):
        if path.suffix in (".list", ".sources") and path.exists():
            (parts / path.name).write_text(with_sources(path.read_text()))
    state = [f"Dir::State::lists={lists}", "Dir::Etc::sourcelist=/dev/null", f"Dir::Etc::sourceparts={parts}"]
    options = [part for one in (*state, "APT::Sandbox::User=root") for part in ("-o", one)]
    _run(["apt-get", *options, "update"], folder)
    _run(["apt-get", *options, "download", f"postgresql-server-dev-{major}={version}"], folder)
    _run(["apt-get", *options, "source", "--download-only", f"postgresql-{major}={version}"], folder)
    (package,) = folder.glob(f"postgresql-server-dev-{major}_*.deb")
    _run(["dpkg", "-x", str(package), str(folder / "headers")], folder)
    (archive,) = folder.glob(f"postgresql-{major}_*.orig.tar.*")
    _run(["tar", "-xf", str(archive), "--wildcards", "*/src/test/regress/*"], folder)


def with_sources(text: str) -> str:
    """Return a list of packages, in either of apt's forms, that names the sources too."""
    lines = []
    for line in text.splitlines():
        if line.startswith("deb "):
            lines.append(line)
            lines.append(f"deb-src {line[4:]}")
        else:
            lines.append(re.sub(r"^Types:\s*deb\s*$", "Types: deb deb-src", line))
    return "\n".join(lines) + "\n"


def _build(source: Path, install: Path, includes: Path, library: Path) -> None:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise NoRegress("a C compiler is needed to build the functions of the regression SQL")
    library.mkdir(parents=True, exist_ok=True)
    command = [compiler, "-O1", "-fPIC", "-shared", "-D_GNU_SOURCE", f"-I{includes}"]
    command += [f"-I{includes.parents[1] / 'internal'}", str(source / "regress.c"), "-o", str(library / "regress.so")]
    _run(command, source, BUILD_SECONDS_MAX)
    for name in _BESIDE:
        if (install / "lib" / name).exists():
            shutil.copy(install / "lib" / name, library / name)


def _run(command: Iterable[str], folder: Path, seconds: float = FETCH_SECONDS_MAX) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    words = list(command)
    ran = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False)
    if ran.returncode != 0:
        said = "\n".join((ran.stderr or ran.stdout).splitlines()[-SAID_LINES_MAX:])
        raise NoRegress(f"{words[0]} failed:\n{said}")
    return ran.stdout
