"""The life of an embedded server, shown on Valkey because it starts fastest."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import pytest
import redis

from backend_watcher.embedded import EmbeddedValkey, Way, account, cache, install, server
from backend_watcher.embedded.ports import LOOPBACK, free_port
from backend_watcher.errors import EmbeddedError

from .conftest import as_root, wait_until_gone

SOURCE = str(Path(server.__file__).parents[2])
PROGRAM = textwrap.dedent("""
    import sys
    from backend_watcher.embedded import EmbeddedValkey
    valkey = EmbeddedValkey().start()
    print(valkey.pid, valkey.folder, valkey.way, flush=True)
    sys.stdin.read()
""")


def program(
    code: str = PROGRAM, *, python: str = sys.executable, source: str = SOURCE, **options: object
) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": source}
    return subprocess.Popen(
        [python, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd="/",
        **options,  # type: ignore[call-overload]
    )


def test_asked_before_the_start_it_says_so() -> None:
    valkey = EmbeddedValkey()
    for question in ("port", "folder", "log_path", "pid", "way", "url"):
        with pytest.raises(EmbeddedError, match="not started"):
            getattr(valkey, question)
    valkey.stop()
    valkey.kill()
    assert not valkey.running
    with pytest.raises(ValueError, match="immediate"):
        valkey.stop("immediate")


def test_start_twice_is_one_server_and_stop_leaves_nothing() -> None:
    valkey = EmbeddedValkey()
    first = valkey.start().pid
    assert valkey.start().pid == first
    folder = valkey.folder
    valkey.stop()
    assert not folder.exists()
    assert not valkey.running
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_a_server_that_died_is_started_again_on_its_port() -> None:
    with EmbeddedValkey() as valkey:
        port, folder = valkey.port, valkey.folder
        valkey.kill()
        assert not valkey.running
        assert folder.exists()
        valkey.start()
        os.kill(valkey.pid, signal.SIGKILL)
        assert wait_until_gone(valkey.pid)
        valkey.start()
        assert (valkey.port, valkey.folder) == (port, folder)


def test_a_taken_port_is_an_error_when_asked_for_and_not_when_found() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedError, match="Address already in use"):
            EmbeddedValkey(port=port).start()


def test_a_port_that_is_lost_between_finding_and_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        offers = iter([taken.getsockname()[1], free_port()])
        monkeypatch.setattr(server, "free_port", lambda _: next(offers))
        with EmbeddedValkey() as valkey:
            assert redis.Redis.from_url(valkey.url).ping()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_a_killed_program_takes_its_server_with_it() -> None:
    with program() as parent:
        assert parent.stdout is not None
        pid, folder, _ = parent.stdout.readline().split()
        parent.kill()
        assert wait_until_gone(int(pid))
    shutil.rmtree(folder)  # nobody was there to remove it


def test_a_program_that_ends_stops_its_server_and_removes_the_folder() -> None:
    with program() as parent:
        pid, folder, _ = parent.communicate(timeout=60)[0].split()
    assert parent.returncode == 0
    assert wait_until_gone(int(pid))
    assert not Path(folder).exists()


def test_a_forked_copy_of_the_program_leaves_the_server_alone() -> None:
    forks = PROGRAM + textwrap.dedent("""
        import os
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            print(valkey.running, valkey.folder.exists(), flush=True)
    """)
    with program(forks) as parent:
        assert parent.communicate(timeout=60)[0].splitlines()[-1] == "True True"


@as_root
def test_a_program_that_is_not_root_runs_it_directly(public_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = account.choose(Way.SWITCH)
    python = python_for(nobody)
    # Copies, because a checkout or a virtual environment may be closed to nobody.
    monkeypatch.setattr(tempfile, "tempdir", str(public_dir))
    monkeypatch.setenv("WATCHER_POSTGRES_DIR", str(cache.reachable(install.find_postgres(), nobody, "postgres").bin))
    package = public_dir / "source" / "backend_watcher"
    shutil.copytree(Path(server.__file__).parent, package / "embedded")
    shutil.copy(Path(SOURCE, "backend_watcher", "errors.py"), package)
    with program(
        PROGRAM.replace("EmbeddedValkey", "EmbeddedPostgres"),
        python=python,
        source=str(package.parent),
        user=nobody.uid,
        group=nobody.gid,
        extra_groups=[],
    ) as parent:
        assert parent.communicate(timeout=60)[0].split()[2] == "direct"
    assert parent.returncode == 0


def python_for(who: account.Account) -> str:
    """An interpreter that somebody else can run: ours may lie below a closed home."""
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        if who.output_of(python, "-c", check) is not None:
            return python
    pytest.skip("there is no Python that nobody can run")


def test_many_threads_get_one_server() -> None:
    with EmbeddedValkey() as valkey:
        pids: list[int] = []
        threads = [threading.Thread(target=lambda: pids.append(valkey.start().pid)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert pids == [valkey.pid] * 8
