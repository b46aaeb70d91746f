"""
The first lines of every child: take the account, tie its life to ours, then become the server.

Run as a script by a fresh interpreter, so that no Python code runs between fork and exec in a program that
has threads (a `preexec_fn` may wait for ever for a lock that another thread held). Standard library only:
the child knows nothing of the package.

    launch.py WAY UID GID PARENT SIGNAL PROGRAM [ARGUMENT ...]    become PROGRAM
    launch.py WAY UID GID PARENT SIGNAL --take                    exit 0 if the account can be taken
    launch.py WAY UID GID PARENT SIGNAL --reach FOLDER            exit 0 if the account can work in FOLDER
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

REFUSED = 125
"""Exit code: the account could not be taken, or the program could not be run."""

_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> NoReturn:
    """Become the program, or exit with an answer."""
    way, uid, gid, parent, end_signal, program, *rest = arguments
    take_account(way, int(uid), int(gid))
    # After the account is taken: a change of credentials makes the kernel forget the signal.
    die_with(int(parent), int(end_signal))
    if program == "--take":
        sys.exit(0)
    if program == "--reach":
        sys.exit(0 if os.access(rest[0], os.R_OK | os.W_OK | os.X_OK) else 1)
    os.umask(0o077)
    # Python ignores these two, and what is ignored stays ignored in the program.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.execv(program, [program, *rest])  # noqa: S606 - a shell would get in the way of signals


def take_account(way: str, uid: int, gid: int) -> None:
    """Stop being root, in one of the ways that `account` describes."""
    if way == "namespace":
        _enter_namespace(uid, gid)
    elif way == "switch":
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)


def die_with(parent: int, end_signal: int) -> None:
    """Ask the kernel to send `end_signal` when the thread that started us is gone. Linux only."""
    if sys.platform != "linux":
        return
    _call("prctl", _PR_SET_PDEATHSIG, end_signal, 0, 0, 0)
    if os.getppid() != parent:
        raise OSError("the program that asked for this server is gone")


def _enter_namespace(uid: int, gid: int) -> None:
    """Be `uid` in a user namespace of our own; outside, files and signals go on as before."""
    outside_uid, outside_gid = os.geteuid(), os.getegid()
    _call("unshare", _CLONE_NEWUSER)
    # Groups are denied first: the kernel asks for it before an unprivileged gid_map.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {outside_uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {outside_gid} 1")
    if os.geteuid() != uid:
        raise OSError("the user namespace did not take effect")


def _call(name: str, *arguments: int) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    if function(*(ctypes.c_ulong(value) for value in arguments)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        print(f"launch: {error}", file=sys.stderr)
        sys.exit(REFUSED)
