"""The README typed as it stands, by somebody who has never heard of us, against a PostgreSQL that is not ours."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from backend_watcher.embedded import EmbeddedPostgres

ROOT = Path(__file__).parent.parent.parent
ANSWER_SECONDS_MAX = 30.0
SYSTEM_SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


def blocks(readme: str, language: str) -> list[str]:
    """Return the code blocks of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / readme).read_text(), re.DOTALL)


@pytest.fixture(params=["wheel", pytest.param("system", marks=pytest.mark.servers)])
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    """A plain server; its own settings but for `wal_level`."""
    if request.param == "system" and not SYSTEM_SERVERS:
        pytest.skip("no PostgreSQL is installed on this machine")
    install = SYSTEM_SERVERS[-1].parent.parent if request.param == "system" else None
    with EmbeddedPostgres(install_dir=install) as postgres:
        yield postgres


class Typed:
    """Commands in a folder, as a person types them."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self._folder = folder
        self._environ = {**os.environ, "DATABASE_URL": dsn}

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "backend_watcher", *words]
        return subprocess.Popen(
            command, cwd=self._folder, env=self._environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )


@pytest.mark.parametrize("readme", ["README.md", "README.id.md"])
def test_twenty_lines_deliver(readme: str, server: EmbeddedPostgres, tmp_path: Path) -> None:
    create, change = blocks(readme, "sql")
    (tmp_path / "shop.py").write_text(blocks(readme, "python")[0])
    typed = Typed(tmp_path, server.dsn)
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(create)
        with typed.start("check", "shop.py") as check:
            assert check.wait(60) == 0
        run = typed.start("run", "shop.py")
        pause = threading.Event()
        for _ in range(600):
            if connection.execute("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'").fetchone():
                break
            assert run.poll() is None
            pause.wait(0.1)
        connection.execute(change)
    committed = time.monotonic()
    lines = _read(run, 2)
    print(f"delivered {time.monotonic() - committed:.3f} s after the commit")
    run.send_signal(signal.SIGTERM)
    assert run.wait(30) == 0
    assert run.stdout is not None
    run.stdout.close()
    # Two subscriptions, each with its own pace: no order between them.
    assert sorted(line.split()[0] for line in lines) == ["insert", "kopi:"]


def _read(process: subprocess.Popen[str], count: int) -> list[str]:
    """Read so many lines, however long they take, within the bound."""
    assert process.stdout is not None
    stop = threading.Timer(ANSWER_SECONDS_MAX, process.kill)
    stop.start()
    lines = [process.stdout.readline() for _ in range(count)]
    stop.cancel()
    assert all(lines), f"{count} lines were expected within {ANSWER_SECONDS_MAX:g} s: {lines}"
    return lines


def test_the_toml_of_the_readme_is_understood(tmp_path: Path) -> None:
    from backend_watcher.service.config import load_config

    for readme in ("README.md", "README.id.md"):
        path = tmp_path / "watcher.toml"
        path.write_text(f'name = "shop"\n{blocks(readme, "toml")[0]}')
        config = load_config(path, {"DATABASE_URL": "postgresql://127.0.0.1/shop"}, watcher=None)
        assert config.subscriptions[0].sink == "redis_cache"
