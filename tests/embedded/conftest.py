"""Folders and accounts for the tests of embedded servers."""

from __future__ import annotations

import os
import select
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend_watcher.embedded import account
from backend_watcher.embedded.account import Way
from backend_watcher.errors import EmbeddedError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")


def wait_until_gone(pid: int) -> bool:
    """Whether a process that is not our child ends in time."""
    try:
        poll = select.poll()
        poll.register(os.pidfd_open(pid), select.POLLIN)
        return bool(poll.poll(20_000))
    except ProcessLookupError:
        return True


@pytest.fixture
def public_dir() -> Iterator[Path]:
    """A folder that every account can enter, unlike tmp_path."""
    path = Path(tempfile.mkdtemp(prefix="watcher-test-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=[Way.NAMESPACE, Way.SWITCH] if os.geteuid() == 0 else [Way.DIRECT])
def way(request: pytest.FixtureRequest) -> Way:
    """Each way of running a server that this user and this system allow; root never runs one directly."""
    wanted = Way(request.param)
    try:
        account.choose(wanted)
    except EmbeddedError as error:
        pytest.skip(error.message)
    return wanted
