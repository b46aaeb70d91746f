"""One child and its family."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from signal import SIGINT, SIGTERM

import pytest

from backend_watcher.embedded import process
from backend_watcher.embedded.process import ServerProcess

from .conftest import wait_until_gone


def run(code: str, log: Path) -> ServerProcess:
    with log.open("ab") as file:
        return ServerProcess([sys.executable, "-c", code], name="child", log=file.fileno())


WAIT = "import signal\nprint('ready', flush=True)\nsignal.pause()"
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAIT
FORKS = "import os, signal\nchild = os.fork()\nif child: print(child, 'ready', flush=True)\nsignal.pause()"


def says_ready(log: Path) -> bool:
    return "ready" in log.read_text()


def test_ready_then_stopped_and_no_zombie(tmp_path: Path) -> None:
    child = run(WAIT, tmp_path / "log")
    assert child.wait_until(lambda: says_ready(tmp_path / "log"), 60)
    child.stop([SIGTERM])
    assert not child.running
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_a_child_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    child = run("print('I cannot')", tmp_path / "log")
    assert not child.wait_until(lambda: False, 60)
    assert child.wait(60) == 0
    child.stop([])
    assert (tmp_path / "log").read_text() == "I cannot\n"


def test_time_is_bounded(tmp_path: Path) -> None:
    child = run(WAIT, tmp_path / "log")
    assert not child.wait_until(lambda: False, 0.05)
    assert child.wait(0.05) is None
    child.stop([])


def test_a_signal_that_is_ignored_is_followed_by_a_harder_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = run(DEAF, tmp_path / "log")
    assert child.wait_until(lambda: says_ready(tmp_path / "log"), 60)
    # The second one may take a while to be obeyed, where others need the machine too.
    monkeypatch.setattr(process, "STOP_SECONDS_MAX", 3.0)
    child.stop([SIGTERM, SIGINT])
    assert child.wait(60) == -SIGINT or child.wait(60) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_what_a_killed_child_leaves_behind_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "FAMILY_SECONDS_MAX", 0.5)
    child = run(FORKS, tmp_path / "log")
    assert child.wait_until(lambda: says_ready(tmp_path / "log"), 60)
    grandchild = int((tmp_path / "log").read_text().split()[0])
    child.stop([])
    assert wait_until_gone(grandchild)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_a_child_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    from backend_watcher.embedded.account import Account, Way

    me = Account(Way.DIRECT, os.geteuid(), os.getegid())
    children: list[ServerProcess] = []

    def start() -> None:
        with (tmp_path / "log").open("ab") as file:
            command = me.command(sys.executable, "-c", WAIT, end_signal=SIGTERM)
            children.append(ServerProcess(command, name="child", log=file.fileno()))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert children[0].wait_until(lambda: says_ready(tmp_path / "log"), 60)
    assert children[0].wait(0.1) is None
    children[0].stop([SIGTERM])


def test_a_command_that_cannot_start_raises_where_it_was_asked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ServerProcess([str(tmp_path / "nothing")], name="child", log=subprocess.DEVNULL)
