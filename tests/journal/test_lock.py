"""One process has the journal."""

import os
import subprocess
import sys

import pytest

from backend_watcher.errors import JournalBroken, JournalLocked
from backend_watcher.journal.lock import Lock

HOLD = """
import sys
from pathlib import Path
from backend_watcher.journal.lock import Lock
lock = Lock(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_second_owner_is_told_the_pid_of_the_first(tmp_path):
    path = tmp_path / "x.lock"
    lock = Lock(path)
    with pytest.raises(JournalLocked, match=f"process {os.getpid()} has"):
        Lock(path)
    lock.release()
    lock.release()
    Lock(path).release()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_killed_owner_leaves_no_lock(tmp_path):
    path = tmp_path / "x.lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout.readline() == b"locked\n"
        with pytest.raises(JournalLocked, match=f"process {owner.pid} has"):
            Lock(path)
        owner.kill()
    Lock(path).release()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(JournalBroken, match="cannot be opened"):
        Lock(tmp_path / "missing" / "x.lock")


def test_a_lock_that_was_taken_away_is_found_out(tmp_path):
    path = tmp_path / "x.lock"
    lock = Lock(path)
    lock.check()
    path.unlink()
    with pytest.raises(JournalBroken, match="gone") as caught:
        lock.check()
    assert "one instance" in caught.value.remedy
    other = Lock(path)
    with pytest.raises(JournalBroken, match="replaced"):
        lock.check()
    other.check()
    other.release()
    lock.release()
