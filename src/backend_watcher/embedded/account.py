"""
Who runs a server: PostgreSQL refuses root, and root is what many containers are.

    direct       we are not root: nothing to do
    namespace    root, in a user namespace where it is called nobody: files stay ours, nothing is copied
    switch       root without user namespaces (Docker's default profile): the child becomes nobody, which
                 must own the data folder and must be able to reach the binaries

They are tried in this order. No user is ever made, and no folder that is not ours ever changes its mode.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from backend_watcher.embedded import launch
from backend_watcher.errors import EmbeddedError

NOBODY = 65534
PROBE_SECONDS_MAX = 20.0
"""For a program that only says its version; long, because a loaded machine is not a broken one."""

_KEPT_ENVIRONMENT = ("PATH", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class Way(StrEnum):
    """How a child stops being root."""

    DIRECT = "direct"
    NAMESPACE = "namespace"
    SWITCH = "switch"


@dataclass(frozen=True)
class Account:
    """A way, and the user and group that the server sees itself as."""

    way: Way
    uid: int
    gid: int

    @property
    def file_owner(self) -> tuple[int, int]:
        """The user and group, as seen from here, that must own the server's files."""
        return (self.uid, self.gid) if self.way is Way.SWITCH else (os.geteuid(), os.getegid())

    def command(self, program: Path | str, *arguments: str, end_signal: int = signal.SIGKILL) -> list[str]:
        """The command line that runs `program` as this account, and ends it when we are gone."""
        start = [sys.executable, "-I", "-S", str(Path(launch.__file__).resolve())]
        who = [self.way.value, str(self.uid), str(self.gid), str(os.getpid()), str(int(end_signal))]
        return [*start, *who, str(program), *arguments]

    def output_of(self, program: Path | str, *arguments: str) -> str | None:
        """What `program` prints as this account, or None if it cannot be run or says no."""
        try:
            done = subprocess.run(
                self.command(program, *arguments),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=environment(),
                cwd="/",
                timeout=PROBE_SECONDS_MAX,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None

    def reaches(self, folder: Path) -> bool:
        """Whether this account can read and write in `folder`: asked of the kernel, not computed from modes."""
        return self.output_of("--reach", str(folder)) is not None


def environment() -> dict[str, str]:
    """What a child may see of our environment: no PG* variable that bends it, and no secret of ours."""
    return {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ} | {"LC_ALL": "C"}


def choose(way: Way | None = None, *, owner: int | None = None) -> Account:
    """
    The account for a server whose data belongs to `owner` (None: there is no data yet).

    Root keeps data that belongs to somebody else in that account's hands, so that its owner can still
    start the server without root.
    """
    if way is None and os.geteuid() != 0:
        way = Way.DIRECT
    if way is Way.DIRECT:
        return Account(Way.DIRECT, os.geteuid(), os.getegid())
    if way is None and owner:
        return _account_of(Way.SWITCH, owner)
    nobody = nobody_uid()
    if way is not Way.SWITCH:
        account = _account_of(Way.NAMESPACE, nobody)
        if account.output_of("--take") is not None:
            return account
        if way is Way.NAMESPACE:
            raise EmbeddedError(
                "this system does not allow user namespaces", remedy="Leave the way out: another one is used."
            )
    return _account_of(Way.SWITCH, nobody)


def nobody_uid() -> int:
    """The uid of nobody. It must be in passwd: initdb asks for the name of whoever runs it."""
    for entry in pwd.getpwall():
        if entry.pw_uid == NOBODY or entry.pw_name == "nobody":
            return entry.pw_uid
    raise EmbeddedError(
        "PostgreSQL refuses to run as root, and there is no account `nobody` to run it as",
        remedy="Run as another user, or add `nobody` to /etc/passwd.",
    )


def _account_of(way: Way, uid: int) -> Account:
    try:
        return Account(way, uid, pwd.getpwuid(uid).pw_gid)
    except KeyError:
        raise EmbeddedError(
            f"the data folder belongs to user {uid}, which has no name on this machine",
            remedy="Give the folder to a user of this machine, or start with another one.",
        ) from None
