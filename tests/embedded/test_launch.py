"""The child's first lines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from backend_watcher.embedded import account, launch
from backend_watcher.embedded.account import Account, Way

DIRECT = Account(Way.DIRECT, os.geteuid(), os.getegid())


def test_the_program_is_not_root_and_keeps_the_process_id(way: Way) -> None:
    command = account.choose(way).command("/bin/sh", "-c", "id -u; echo $$; umask")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        output = child.communicate(timeout=60)[0].split()
        assert output[0] != "0"
        assert int(output[1]) == child.pid
        assert output[2] == "0077"


def test_signals_that_python_ignores_are_not_ignored_in_the_program() -> None:
    status = DIRECT.output_of("/bin/sh", "-c", "grep SigIgn /proc/self/status")
    if sys.platform == "linux":
        assert status is not None
        assert not int(status.split()[1], 16) & (1 << signal.SIGPIPE - 1)


def test_a_program_that_is_missing_is_said_so(tmp_path: Path) -> None:
    done = subprocess.run(DIRECT.command(tmp_path / "nothing"), capture_output=True, text=True, check=False)
    assert done.returncode == launch.REFUSED
    assert done.stderr.startswith("launch: ")
    assert "No such file" in done.stderr


def test_a_child_whose_parent_is_gone_does_not_become_the_server() -> None:
    if sys.platform != "linux":
        return
    command = DIRECT.command("/bin/echo", "started")
    command[command.index(str(os.getpid()))] = "1"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == launch.REFUSED
    assert done.stdout == ""
