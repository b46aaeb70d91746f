"""
A PostgreSQL data folder: made once, given its settings at each start, and never shared by two servers.

No client program and no connection is used: `initdb` makes it, a file that postgresql.conf includes carries the
settings (so that ALTER SYSTEM still has the last word, on every version), single-user mode makes a database,
and postmaster.pid tells how the server is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import SIGTERM

from backend_watcher.embedded.account import Account
from backend_watcher.embedded.folder import Folder
from backend_watcher.embedded.process import STOP_SECONDS_MAX, ServerProcess
from backend_watcher.errors import EmbeddedError

SUPERUSER = "postgres"
TOOL_SECONDS_MAX = 120.0
"""For initdb, or for a database made in single-user mode after a crash."""

LEAVING_SECONDS = 1.0
"""A server whose program was just killed needs a moment before it says that it is stopping."""

DEFAULT_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    # A socket's path may not be longer than 107 bytes, and temporary folders are.
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "wal_level": "logical",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    # Without a cap an abandoned slot fills the disk.
    "max_slot_wal_keep_size": "4GB",
}

_INCLUDE = "\n# Settings of the embedded server, written anew at each start.\ninclude_if_exists = '../embedded.conf'\n"
_POLL_SECONDS = 0.02


def make_cluster(folder: Folder, account: Account, initdb: Path) -> None:
    """Run initdb; the password is in the folder already, and never on a command line."""
    fresh = folder.path / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)  # of a start that was killed half-way
    arguments = ["-D", str(fresh), "-U", SUPERUSER, "--pwfile", str(folder.path / "password")]
    arguments += ["-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "--no-instructions"]
    if not folder.keep:
        arguments.append("--no-sync")
    if _run_tool(folder, account.command(initdb, *arguments, end_signal=SIGTERM)) != 0:
        shutil.rmtree(fresh, ignore_errors=True)
        raise EmbeddedError(
            f"initdb failed; the last lines of {folder.log}:\n{folder.log_tail()}", remedy="Mend what its log names."
        )
    descriptor = os.open(fresh / "postgresql.conf", os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
    with open(descriptor, "a", encoding="utf-8") as file:
        file.write(_INCLUDE)
    fresh.rename(folder.data)


def check_cluster(folder: Folder, version: str) -> None:
    """Refuse a data folder that these binaries cannot open."""
    try:
        made_by = (folder.data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        made_by = "an unknown version"
    if made_by != version.partition(".")[0]:
        raise EmbeddedError(
            f"{folder.path} was made by PostgreSQL {made_by}, and this is {version}",
            remedy=f"Start it with the binaries of PostgreSQL {made_by}, or name another data folder.",
        )


def write_settings(folder: Folder, settings: Mapping[str, str]) -> None:
    """Write the file that postgresql.conf includes."""
    lines = []
    for name, value in {**DEFAULT_SETTINGS, **settings}.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$.]*", name) or any(sign in value for sign in "\n\r\0"):
            raise EmbeddedError(
                f"the setting {name!r} cannot be written to a file", remedy="Its name is a word, its value is one line."
            )
        if name.lower() == "port":
            raise EmbeddedError("the port is not a setting", remedy="Give it as the argument `port`.")
        quoted = value.replace("\\", "\\\\").replace("'", "''")
        lines.append(f"{name} = '{quoted}'\n")
    folder.write("embedded.conf", "".join(lines))


def create_database(folder: Folder, account: Account, postgres: Path, name: str) -> None:
    """Make a database while no server runs; one that exists already is left alone."""
    if any(sign in name for sign in "\n\r\0"):
        raise EmbeddedError("the name of a database is one line", remedy="Choose another name.")
    before = folder.log.stat().st_size
    reading, writing = os.pipe()
    try:
        quoted = name.replace('"', '""')
        os.write(writing, f'CREATE DATABASE "{quoted}"\n'.encode())
        os.close(writing)
        command = account.command(postgres, "--single", "-D", str(folder.data), SUPERUSER, end_signal=SIGTERM)
        code = _run_tool(folder, command, stdin=reading)
    finally:
        os.close(reading)
    errors = [line for line in folder.log_text(before).splitlines() if re.search(r"\b(ERROR|FATAL|PANIC):", line)]
    if code != 0 or any("already exists" not in line for line in errors):
        raise EmbeddedError(
            f"database {name!r} could not be made; the last lines of {folder.log}:\n{folder.log_tail()}",
            remedy="Mend what its log names.",
        )


def read_lock(data: Path) -> list[str]:
    """The lines of postmaster.pid: process id, folder, start, port, socket folder, address, memory, status."""
    try:
        text = (data / "postmaster.pid").read_text(errors="replace")
        return [line.strip() for line in text.splitlines()]
    except FileNotFoundError:
        return []


def is_ready(data: Path, pid: int) -> bool:
    """Whether the server `pid` says that it takes connections."""
    lock = read_lock(data)
    return len(lock) > 7 and lock[0] == str(pid) and lock[7] == "ready"


def clear_lock(data: Path) -> None:
    """
    Wait for a server that is just leaving, refuse one that stays, and remove what a dead one left behind.

    PostgreSQL itself believes postmaster.pid whenever a process of that number lives. After a crash in a
    container the number often belongs to somebody else, and the server would refuse to start for ever.
    """
    begin = time.monotonic()
    while (lock := read_lock(data)) and (users := _processes_in(data, lock)):
        leaving = lock[7:] == ["stopping"] or lock[0] not in map(str, users)
        if time.monotonic() - begin > (STOP_SECONDS_MAX if leaving else LEAVING_SECONDS):
            raise EmbeddedError(
                f"{data.parent} is in use by another PostgreSQL server, process {lock[0]}",
                remedy="Stop that server, or name another data folder.",
            )
        time.sleep(_POLL_SECONDS)
    if lock and sys.platform == "linux":
        (data / "postmaster.pid").unlink(missing_ok=True)


def _processes_in(data: Path, lock: Sequence[str]) -> set[int]:
    """The processes that work in a data folder: every process of a server has it as its current folder."""
    named = int(lock[0]) if lock[0].isdigit() else 0
    if sys.platform != "linux":
        try:
            os.kill(named, 0)
        except (ProcessLookupError, PermissionError):
            return set()
        return {named} if named else set()
    found, real = set(), os.path.realpath(data)
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and os.readlink(f"/proc/{entry}/cwd") == real:
                found.add(int(entry))
        except OSError:
            continue  # it ended, or belongs to somebody who could not open this folder
    return found


def _run_tool(folder: Folder, command: Sequence[str], stdin: int = subprocess.DEVNULL) -> int | None:
    log = folder.open_log()
    try:
        tool = ServerProcess(command, name="a tool of PostgreSQL", log=log, stdin=stdin)
    finally:
        os.close(log)
    try:
        return tool.wait(TOOL_SECONDS_MAX)
    finally:
        tool.stop(())
